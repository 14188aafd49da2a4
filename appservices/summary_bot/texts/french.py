"""French lines; what is not here is said in English."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "outcome": "Résultat",
    "decisions": "Décisions",
    "open_questions": "Questions ouvertes",
    "actions": "Actions",
    "disagreements": "Désaccords",
    "title": "Résumé de {room}",
    "coverage": "Lu : {covered} messages sur {total}, de {first} à {last} (UTC).",
    "coverage_more": "Lu : {covered} messages sur plus de {total}, de {first} à {last} (UTC).",
    "coverage_none": "Il n'y a rien : aucun message que vous puissiez voir dans cette période.",
    "left_out": "Les messages de {people} personnes manquent : elles l'ont demandé, ou vous les ignorez.",
    "since_left": "Depuis votre dernière visite.",
    "since_day": "Votre dernière lecture n'est pas connue : les dernières 24 heures.",
    "by_engine": "Choisi par le moteur intégré : les phrases telles qu'elles ont été écrites.",
    "by_model": "Rédigé par {model} ; chaque ligne a été comparée à ses sources.",
    "nothing_found": "Rien de marquant.",
    "no_actions": "Aucune action n'a été convenue.",
    "no_decisions": "Aucune décision n'a été prise.",
    "no_answer": "Les messages ne le disent pas.",
    "owner": "{owner} :",
    "enabled": "Je suis actif dans ce salon. `!summary` dit ce que vous avez manqué, `!help` le reste.",
    "not_enabled": "Je suis inactif ici. Qui peut modifier les réglages du salon peut dire `!enable`.",
    "no_power": "Il faut pouvoir modifier les réglages du salon.",
    "encrypted": "Ce salon est chiffré, et je ne peux pas le lire.",
    "unreadable": "{count} messages chiffrés n'ont pas pu être lus : je n'en ai pas la clé.",
    "not_member": "Vous n'êtes pas dans ce salon, ou je n'y suis pas.",
    "language_set": "Je vous réponds désormais dans cette langue.",
    "opted_out": "Vos paroles restent désormais hors de tout résumé. `!optin` annule.",
}
