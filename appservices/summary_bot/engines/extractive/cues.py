"""Words by which people show that they decide, ask, take on or object, in several languages."""

from __future__ import annotations

import re

DECISION = (
    r"\b(?:we|i)(?:'ve| have)? (?:decided|agreed|settled|chose|picked)\b",
    r"\bdecision\b(?! (?:is )?(?:pending|open))",
    r"\b(?:decided|agreed)[:!.]",
    r"\blet'?s (?!see\b|hope|talk|wait|discuss|look|check|try|say\b|hear|not\b|think|start\b|begin|meet\b)[a-z]{2,}",
    r"\bagreed by\b|\bfrom now on\b",
    r"\bwe(?:'ll| will| are going to| shall) (?:go with|use|ship|take|keep|drop|move|release|postpone|switch)\b",
    r"\b(?:it'?s|that'?s) (?:decided|settled|final|agreed)\b",
    r"\bfinal(?:ly)? (?:decision|decided|answer)\b",
    r"\b(?:approved|rejected|signed off)\b",
    r"\bwe (?:go|are going) with\b",
    r"\b(?:wir|ich) (?:haben|habe|hatten) .{0,60}\b(?:beschlossen|entschieden|vereinbart|geeinigt)\b",
    r"\b(?:beschlossen|entschieden|vereinbart|abgemacht|beschluss|entscheidung)\b",
    r"\bwir (?:nehmen|machen|verschieben|bleiben bei|verwenden|gehen mit|behalten|lassen|streichen|mieten)\b",
    r"\b(?:steht fest|einigen uns|einverstanden, dann)\b|\bab (?:jetzt|sofort)\b",
    r"\b(?:on a|nous avons|c'est) (?:décidé|convenu|choisi|retenu)\b",
    r"\b(?:décision|décidé|adopté)\b",
    r"\bon (?:part sur|prend|garde|reporte)\b",
    r"\b(?:hemos|se ha|queda) (?:decidido|acordado|elegido)\b",
    r"\b(?:decisión|decidido|acordado|aprobado)\b",
    r"\bvamos (?:a usar|con)\b",
    r"\b(?:решили|решено|договорились|решение|утвердили)\b",
    r"决定|定了|就这么|敲定|确定(?!吗|了吗|一下)|一致同意|通过了|达成一致|最终方案|都同意|就用|就选|改用|不再.{1,8}了|決定|決まり|ことにし",
)

ACTION_SELF = (
    r"\bi(?:'ll| will| am going to|'m going to| can take| take)\b",
    r"\b(?:let me|leave (?:it|that) to me|on it\b|i'm on)",
    r"\bich (?:werde|kümmere|mache|übernehme|schicke|schreibe|erledige|prüfe|schaue|teste|bereite|baue|hole|bringe|"
    r"rufe|melde|organisiere|kaufe|bestelle|besorge|buche|frage|suche|repariere|kläre|trage|gehe|fahre)\b",
    r"\bje (?:vais|m'en occupe|ferai|m'occupe|prends|envoie|prépare|vérifie)\b",
    r"\b(?:yo )?(?:me encargo|voy a|lo hago|haré|enviaré|preparo|reviso)\b",
    r"\bя (?:сделаю|займусь|возьму|напишу|проверю|подготовлю|отправлю)\b",
    r"我(?:来|会|去|负责|明天|今天|今晚|下周|马上|这就|稍后|晚点)|交给我|やります|しておきます|対応します",
)

ACTION_OTHER = (
    r"\b(?:please|pls)\b",
    r"\b(?:can|could|would|will) you\b",
    r"\bto-?do\b",
    r"\baction(?: item)?s?:",
    r"\bneeds? to\b",
    r"\b(?:has|have) to\b",
    r"\byou (?:should|need to|must|have to)\b",
    r"\bassigned to\b",
    r"\bby (?:mon|tues|wednes|thurs|fri|satur|sun)day\b",
    r"\bbitte\b",
    r"\b(?:kannst|könntest|könnt|würdest|machst|schickst) (?:du|ihr)\b",
    r"\bmuss(?:t)? (?:noch|bis)\b",
    r"\baufgabe:",
    r"\b(?:s'il te plaît|s'il vous plaît|stp|svp)\b",
    r"\b(?:peux|pourrais)-tu\b|\b(?:pouvez|pourriez)-vous\b",
    r"\bà faire\b",
    r"\bpor favor\b",
    r"\b(?:puedes|podrías|pueden)\b",
    r"\bhay que\b",
    r"\bпожалуйста\b|\bнужно\b|\bнадо\b",
    r"请|麻烦|需要你|帮忙|帮我|待办|要在.{1,10}前|お願い|してください",
)

OBJECTION = (
    r"\bi (?:disagree|don'?t (?:think|agree)|object|doubt)\b",
    r"\b(?:that'?s|this is) (?:wrong|not (?:right|true|correct)|a bad idea)\b",
    r"\bbad idea\b",
    r"(?<![\w-])-1(?![\w])",
    r"\b(?:strongly )?against (?:it|that|this)\b",
    r"\bi(?:'d| would) rather not\b",
    r"\bnot convinced\b",
    r"\b(?:sehe ich anders|bin dagegen|nicht einverstanden|stimmt nicht|widerspreche|keine gute idee|das ist falsch)\b",
    r"\b(?:pas d'accord|je m'oppose|mauvaise idée|c'est faux)\b",
    r"\b(?:no estoy de acuerdo|mala idea|me opongo|en contra)\b",
    r"\b(?:не согласен|не согласна|против|плохая идея)\b",
    r"不同意|反对|不对|不赞成|有异议|不是好主意|反対|違うと思",
)

QUESTION_ENDS = ("?", "？", "吗", "呢", "か？", "؟")
CHANGE = (
    r"\b(?:instead|after all|no longer|rather than|(?:new|final) decision|changed (?:my|our) minds?|scratch that)\b",
    r"\b(?:statt|stattdessen|anstatt|doch nicht|nicht mehr|neue entscheidung|endgültig)\b",
    r"\b(?:plutôt|finalement|au lieu|ne .{1,30} plus)\b",
    r"\b(?:en lugar|en vez|finalmente|ya no)\b",
    r"\b(?:вместо|больше не|передумали)\b",
    r"改为|改成|改用|不再|而不是|最后决定|变更|代わりに|やめて",
)
"""Words of a decision that takes back an earlier one."""

# "No" alone begins other sentences, too: "No deploys on Fridays", "No estoy de acuerdo".
_ANSWER = re.compile(
    r"^\s*(?:(?:yes|yep|yeah|ja|nein|oui|non|sí|да|нет)\b|(?:no|nope|si)\s*(?:[,.!;:–-]|$)"
    r"|是的?|不是?|对|好|可以|不行|はい|いいえ)",
    re.IGNORECASE,
)


def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


_DECISION = _compiled(DECISION)
_ACTION_SELF = _compiled(ACTION_SELF)
_ACTION_OTHER = _compiled(ACTION_OTHER)
_OBJECTION = _compiled(OBJECTION)
_CHANGE = _compiled(CHANGE)


def is_question(text: str) -> bool:
    """Whether a sentence asks."""
    return text.rstrip(" \"'”’)」!！").endswith(QUESTION_ENDS)


def is_decision(text: str) -> bool:
    """Whether a sentence says that something is decided."""
    return not is_question(text) and _DECISION.search(text) is not None


def is_change(text: str) -> bool:
    """Whether a decision takes back an earlier one."""
    return _CHANGE.search(text) is not None


def is_objection(text: str) -> bool:
    """Whether a sentence contradicts somebody."""
    return not is_question(text) and _OBJECTION.search(text) is not None


def is_own_action(text: str) -> bool:
    """Whether whoever says it takes something on."""
    return not is_question(text) and _ACTION_SELF.search(text) is not None


def is_request(text: str) -> bool:
    """Whether a sentence asks somebody to do something."""
    return _ACTION_OTHER.search(text) is not None


def is_answer(text: str) -> bool:
    """Whether a sentence begins as answers do."""
    return _ANSWER.search(text) is not None
