"""Finds messages that talk to a model instead of to people. Pure.

This is not what keeps answers honest: that is the check of every line against its sources. But a model that never sees
such a message cannot obey it, and people lose little: the built-in engine still quotes what stands out around it.
"""

from __future__ import annotations

import re
import unicodedata

_PATTERNS = (
    r"\b(?:ignore|disregard|forget|override|bypass|skip|discard)\b.{0,40}\b(?:instruction|prompt|rule|above|"
    r"previous|prior|"
    r"earlier|guideline|context|everything|direction|other messages|system)",
    r"\b(?:new|updated|real|actual|following|these|hidden|secret) (?:system )?(?:instruction|directive|prompt)s?\b",
    r"\b(?:system|developer|hidden|initial|original)[ _-]?(?:prompt|message|instruction)s?\b",
    r"\b(?:you are|you're|act as|pretend (?:to be|you)|roleplay as|behave like|from now on,? you)\b.{0,40}"
    r"\b(?:now|assistant|ai|bot|model|dan|admin|system|summari[sz]er|unrestricted|free)",
    r"\b(?:as an?|dear|hey|hello|attention|note to|to the|message for) (?:ai|llm|language model|assistant|"
    r"summari[sz]er|summary bot|bot|model|gpt)\b",
    r"\b(?:summari[sz]er|summari[sz]ing model|llm|language model|chatgpt|gpt|claude|gemini|copilot|ai (?:model|"
    r"assistant|bot))\b"
    r".{0,60}\b(?:must|should|please|will|shall|has to|need to|output|write|say|reply|include|add|report|state)",
    r"\b(?:do not|don't|never) (?:summari[sz]e|mention|include|report|cite|quote|tell)\b",
    r"\b(?:output|respond|reply|answer|print|return|write|say|repeat)\b.{0,25}\b(?:only|exactly|verbatim|"
    r"the following|with the (?:text|word)|"
    r"nothing (?:but|else)|json|this line|your (?:prompt|instructions|rules))",
    r"\bin (?:your|the|any) (?:summary|answer|output|response|digest)\b",
    r"\b(?:when|while|if) (?:you )?(?:summari[sz]e|summari[sz]ing|asked for a summary|generating|"
    r"writing the summary)\b",
    r"\bthe (?:summary|digest|outcome section|decisions? section|answer) (?:must|should|has to|needs to|shall|"
    r"is to)\b",
    r"<\|?/?(?:im_start|im_end|system|assistant|user|endoftext|eot_id|start_header_id)\|?>|\[/?(?:inst|sys|"
    r"system)\]|<</?sys>>",
    r"^\s*(?:#+\s*)?(?:system|assistant|developer|instructions?)\s*[:：>]|\n\s*(?:system|assistant|developer)\s*[:：>]",
    r"\b(?:jailbreak|prompt injection|developer mode|dan mode|sudo mode|god mode)\b",
    r"</?(?:data|messages?|untrusted|context|instructions?|chat|transcript|document)>",
    r"\"(?:role|items|kind|sources|system|instructions)\"\s*:",
    r"\b(?:append|insert|add|attach|include) (?:this|the following) (?:link|url|image|markdown|text|line|"
    r"sentence)\b",
    r"\b(?:reveal|leak|disclose|show me|print|exfiltrate|expose)\b.{0,40}\b(?:prompt|instruction|secret|token|key|"
    r"password|other room|private|redacted|deleted)",
    r"\b(?:translate|encode|decode|base64|rot13|reverse) .{0,40}\b(?:and (?:follow|obey|execute|do)|"
    r"then (?:follow|obey|execute|do))",
    r"\b(?:end of|begin(?:ning)? of|start of|stop) (?:the )?(?:messages?|data|transcript|conversation|context|"
    r"input|user input|chat)\b",
    r"\b(?:ignoriere?|vergiss|missachte|überspringe)\b.{0,40}\b(?:anweisung|anweisungen|regeln|bisherig|vorherig|"
    r"obig|alles|befehle)",
    r"\b(?:neue|geheime|eigentliche) (?:anweisung|anweisungen|regel|regeln|systemanweisung)\b|\bdu bist (?:jetzt|"
    r"nun|ab sofort)\b",
    r"\bin (?:der|deiner|die|deine) (?:zusammenfassung|antwort)\b|\bfasse? (?:dies|das|nichts|"
    r"nicht)\b.{0,20}\bzusammen\b",
    r"\b(?:ignorez?|oubliez?|oublie)\b.{0,40}\b(?:instructions?|consignes?|règles?|précédent|ci-dessus|tout)",
    r"\btu es (?:maintenant|désormais)\b|\bdans (?:ton|votre|le) (?:résumé|réponse)\b|"
    r"\bnouvelles? (?:instructions?|consignes?)\b",
    r"\b(?:ignora|ignore|olvida|olvide)\b.{0,40}\b(?:instrucciones|reglas|anterior|anteriores|todo|lo de arriba)",
    r"\bahora eres\b|\ben (?:tu|el|su) (?:resumen|respuesta)\b|\bnuevas? (?:instrucciones|instrucción)\b",
    r"\b(?:игнорируй|забудь|не учитывай)\b.{0,40}\b(?:инструкц|указан|правил|предыдущ|всё|все)|\bв (?:своём |"
    r"своем )?(?:резюме|сводке|ответе)\b|\bтеперь ты\b",
    r"忽略|无视|忘记(?:之前|以上|前面|所有)|不要(?:总结|概括|提及|引用)|你(?:现在|从现在起)是|系统(?:提示|指令|消息)|新的?(?:指令|指示|命令)"
    r"|(?:总结|摘要|回答|输出)(?:中|里|时)?(?:必须|只能|应该|请写|写上|加上)|请(?:只)?(?:输出|回复|回答)[：:“\"]",
    r"(?:以前|これまで|上記)の?(?:指示|命令|プロンプト)|無視し(?:て|ろ)|あなたは(?:今|これから)|要約(?:に|では|には)"
    r"|이전 (?:지시|명령)|무시하(?:고|세요)",
    r"[A-Za-z0-9+/]{60,}={0,2}",
)  # fmt: skip

_SUSPICIOUS = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS), re.IGNORECASE | re.DOTALL)
_LOOKALIKES = str.maketrans("аеорсухіѕјԁһ013457", "aeopcyxisjdhoieast")
_SPACED = re.compile(r"\b(?:\w[ .\-_*]){4,}\w\b")


def talks_to_model(body: str) -> bool:
    """Whether a message looks like instructions to whoever summarises it, also where letters are disguised."""
    text = unicodedata.normalize("NFKC", body)
    if _SUSPICIOUS.search(text):
        return True
    disguised = text.translate(_LOOKALIKES)
    if disguised != text and _SUSPICIOUS.search(disguised):
        return True
    joined = _SPACED.sub(lambda match: re.sub(r"[ .\-_*]", "", match[0]), text)
    return joined != text and _DENSE.search(re.sub(r"\W+", "", joined).casefold()) is not None


_DENSE = re.compile(r"ignore\w{0,20}instruction|disregard|systemprompt|youarenow|ignorier|忽略")
