"""Spanish lines; what is not here is said in English."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "outcome": "Resultado",
    "decisions": "Decisiones",
    "open_questions": "Preguntas abiertas",
    "actions": "Tareas",
    "disagreements": "Desacuerdos",
    "title": "Resumen de {room}",
    "coverage": "Leído: {covered} de {total} mensajes, de {first} a {last} (UTC).",
    "coverage_more": "Leído: {covered} de más de {total} mensajes, de {first} a {last} (UTC).",
    "coverage_none": "No hay nada: ningún mensaje que usted pueda ver en ese periodo.",
    "left_out": "Faltan los mensajes de {people} personas: así lo quieren, o usted las ignora.",
    "since_left": "Desde su última visita.",
    "since_day": "No se sabe dónde dejó de leer: las últimas 24 horas.",
    "by_engine": "Elegido por el motor incorporado: frases tal como se escribieron.",
    "by_model": "Escrito por {model}; cada línea se comparó con sus fuentes.",
    "nothing_found": "Nada destaca.",
    "no_actions": "No se acordó ninguna tarea.",
    "no_decisions": "No se tomó ninguna decisión.",
    "no_answer": "Los mensajes no lo dicen.",
    "owner": "{owner}:",
    "enabled": "Estoy activo en esta sala. `!summary` dice lo que se perdió, `!help` lo demás.",
    "not_enabled": "Estoy inactivo aquí. Quien pueda cambiar los ajustes de la sala puede decir `!enable`.",
    "no_power": "Hace falta poder cambiar los ajustes de la sala.",
    "encrypted": "Esta sala está cifrada y no puedo leerla.",
    "unreadable": "No se han podido leer {count} mensajes cifrados: no tengo la clave.",
    "not_member": "Usted no está en esa sala, o yo no lo estoy.",
    "language_set": "Desde ahora le respondo en este idioma.",
    "opted_out": "Sus palabras quedan fuera de todo resumen. `!optin` lo revoca.",
}
