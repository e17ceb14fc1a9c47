"""What a request asks for, as far as its words tell: an act, a choice, information, or a reason.

The same sentence ("Stalking is a crime.") answers "What is stalking?" and turns down "How do I stalk someone?".
"""

from __future__ import annotations

import re
from typing import Literal

Wish = Literal["act", "choice", "reason", "information", "yes or no", "unknown"]

_YES_NO = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|should|has|have|may|am|(?:can|could|will|would) (?!you\b))", re.IGNORECASE
)
_REASON = re.compile(
    r"^\W*(?:(?:explain|tell me|say|prove|describe|argue)(?: \w+)? (?:why|that)|why|how come)\b(?! (?:can|"
    r"can't|could)\b)",
    re.IGNORECASE,
)
_INFORMATION = re.compile(
    r"^\W*(?:why|what (?:is|are|was|were|does|do|did|happen\w*|causes?)|who (?:is|was|were|are)|when (?:was|did|were)|"
    r"what should i do\b|how can i (?:tell|recogni[sz]e|know|protect|help|deal|cope)\b|how (?:does|do|did) "
    r"(?!i\b|you\b|"
    r"we\b|one\b)|explain (?!how to)|describe (?!how)|define|tell me about|compare|summari[sz]e)\b",
    re.IGNORECASE,
)
_STEM = 5
_ACT = re.compile(
    r"\b(?:ways?|methods?|tips|instructions|steps|best|least|easiest|fastest|take|view|opinion|think)\b", re.IGNORECASE
)
_CHOICE = re.compile(
    r"^\W*(?:which|who|whom|what|when|where|how (?:many|much|long|often|old)|can you|could you|will you|would "
    r"you|do you)\b",
    re.IGNORECASE,
)
_STATEMENT = re.compile(r"^\W*(?:my|i(?! (?:want|need|would like))|we|he|she|they|it|the|there|this)\b", re.IGNORECASE)
_HOW_TO = re.compile(
    r"^\W*(?:how (?:(?:do|can|could|should|would) (?:i|we|one|someone|you)|to)\b|(?:tell|teach|show) me (?:how|"
    r"ways?)\b|explain how to\b|help me\b|"
    r"(?:give|suggest|tell) (?:me )?(?:an? |some )?(?:plan|tips?|ways?|instructions|advice|steps)\b)",
    re.IGNORECASE,
)
# Groups of people, and acts that harm: what a loaded question is about.
_HARM = re.compile(
    r"\b(?:wom[ae]n|m[ae]n|girls?|boys?|gays?|lesbians?|homosexual\w*|trans(?:gender)?|blacks?|whites?|asians?|"
    r"jew\w*|"
    r"muslims?|islam\w*|christians?|hindus?|atheists?|mexicans?|africans?|immigrants?|migrants?|refugees?|"
    r"foreigners?|"
    r"gyps\w+|roma|races?|racial|ethnic\w*|poor|homeless|fat|\w+ists?|feminis\w*|\w+phob\w+|segregat\w+|"
    r"fathers?|parents?|lesbians?|femin\w+|obese|disabled|autis\w+|retard\w*|old people|elderly|"
    r"children|child|kids?|toddlers?|bab(?:y|ies)|teenagers?|minors?|wife|husband|girlfriend|boyfriend|mother|son|"
    r"daughter|brother|sister|neighbou?rs?|kill\w*|murder\w*|hit\w*|beat\w*|kick\w*|hurt\w*|violen\w*|harm\w*|"
    r"harass\w*|rape\w*|"
    r"steal\w*|rob\w*|abus\w+|tortur\w+|bull(?:y|ied|ying)|poison\w*|drug\w*|die|dead|death|suicid\w*|slavery|"
    r"holocaust|"
    r"genocid\w*|nazis?|hitler|terroris\w+|bombs?|weapons?|guns?|groom\w*|sex\w*|depress\w+|lynch\w*|evil|superior|"
    r"inferior|deserves?|cats?|dogs?|animals?|people|discriminat\w+|\w*sexual\w*|religio\w+|crimes?|abortion)\b",
    re.IGNORECASE,
)


def wish_of(request: str) -> Wish:
    """What the request asks for; `unknown` where there is none, or only a statement."""
    if not request.strip() or _STATEMENT.match(request):
        return "unknown"
    if _REASON.match(request):
        return "reason"
    if _INFORMATION.match(request) and not _ACT.search(request):
        return "information"
    if _CHOICE.match(request):
        return "choice"
    return "yes or no" if _YES_NO.match(request) else "act"


def asks_how(request: str) -> bool:
    """Whether it wants to be told how something is done."""
    return bool(_HOW_TO.match(request))


def touches_harm(request: str) -> bool:
    """Whether the request names people who are often wronged, or an act that harms."""
    return bool(_HARM.search(request))


def returning_words(request: str, sentence: str) -> float:
    """Share of the request's own words, but for the smallest, that come back in the sentence, by their beginnings."""
    words = [word[:_STEM].lower() for word in re.findall(r"\w+", request) if len(word) > 2][1:]
    sentence = sentence.lower()
    return sum(bool(re.search(rf"\b{word}", sentence)) for word in words) / max(1, len(words))
