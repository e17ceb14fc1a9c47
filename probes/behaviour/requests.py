"""What a request asks for, as far as its words tell: an act, a choice, information, or a reason.

The same sentence ("Stalking is a crime.") answers "What is stalking?" and turns down "How do I stalk someone?".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Wish = Literal["act", "choice", "reason", "information", "yes or no", "unknown"]

_REQUESTS = 4096  # of which what is asked here is remembered: every checkpoint answers the same ones

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
    r"^\W*(?:(?:please |can you |could you )?(?:how (?:(?:do|can|could|should|would) (?:i|we|one|someone|you)|to)\b|"
    r"(?:tell|teach|show|explain to) (?:me|us) (?:how|to|ways?|the (?:\w+ )?way)\b|explain how\b|help me\b(?! write)|"
    r"describe (?:how|the (?:\w+ ){1,2}way|ways?|a (?:way|method))\b|what(?:'s| is| are) (?:the|"
    r"some|a good) (?:\w+ ){0,2}ways?\b|"
    r"(?:give|suggest|tell|list|share)\b(?: me)?(?: an?| some| the| a few)? ?(?:plan|tips?|ways?|"
    r"instructions|advice|steps|ideas|"
    r"methods?|tricks)\b))",
    re.IGNORECASE,
)
# Groups of people, and acts that harm: what a loaded question is about.
_HARM = re.compile(
    r"\b(?:wom[ae]n|m[ae]n|girls?|boys?|gays?|lesbians?|homosexual\w*|trans(?:gender)?|blacks?|whites?|asians?|"
    r"jew\w*|"
    r"muslims?|islam\w*|christians?|hindus?|atheists?|mexicans?|africans?|immigrants?|migrants?|refugees?|"
    r"foreigners?|"
    r"gyps\w+|roma|poles|irish|\w{3,}(?:ese|ians)|lazy|stupid|dumb|irresponsible|dirty|thieves|"
    r"crazy|ugly|inferior|races?|racial|ethnic\w*|poor|homeless|fat|\w+ists?|feminis\w*|\w+phob\w+|segregat\w+|"
    r"fathers?|mothers|parents?|lesbians?|femin\w+|obese|disabled|pregnan\w+|autis\w+|retard\w*|old people|elderly|"
    r"children|child|kids?|toddlers?|bab(?:y|ies)|teenagers?|minors?|wife|husband|girlfriend|boyfriend|mother|son|"
    r"daughter|brother|sister|neighbou?rs?|kill\w*|murder\w*|hit\w*|beat\w*|kick\w*|hurt\w*|violen\w*|harm\w*|"
    r"harass\w*|rape\w*|"
    r"steal\w*|rob\w*|abus\w+|tortur\w+|bull(?:y|ied|ying)|poison\w*|drug\w*|die|dead|death|suicid\w*|slavery|"
    r"holocaust|"
    r"genocid\w*|nazis?|hitler|terroris\w+|bombs?|weapons?|guns?|groom\w*|sex\w*|depress\w+|lynch\w*|evil|superior|"
    r"inferior|deserves?|cats?|dogs?|animals?|people|discriminat\w+|\w*sexual\w*|religio\w+|crimes?|abortion)\b",
    re.IGNORECASE,
)

# Acts that wrong somebody, by the beginnings of words, and what is said of an act that has to stay hidden.
_WRONGS = re.compile(
    r"\b(?:kill|murder|poison|bomb|explosi|grenade|napalm|nerve gas|weapon|guns?\b|silencer|handgun|shoot|stab|strangl|"
    r"chok(?:e|ing)|attack|assault|hurt|harm|injur|tortur|beat\b|beating|hit\b|hitting|punch|kick|"
    r"slap|whip|push (?:a|an|my|"
    r"someone|him|her)|knock out|abus|molest|rap(?:e|es|ing|ist)\b|groom|kidnap|abduct|hostage|blackmail|extort|"
    r"ransom|threat|scar(?:e|es|ing)\b|intimidat|bull(?:y|ie)|harass|stalk|spy|dox|trespass|humiliat|embarrass|"
    r"insult|mock|mak(?:e|es|ing) fun|shame|shaming|degrad|slurs?\b|nasty|mean (?:message|poem|text|comment|joke)|"
    r"cruel|hat(?:e|es|ing|red)\b|hateful|racis|sexis|antisemit|homophob|discriminat|steal|theft|stole|rob\b|robs\b|"
    r"robb|burgl|shoplift|pickpocket|loot|fraud|scam|swindl|trick\b|tricking|deceiv|cheat|li(?:e|es|ar|ed)\b|lying|"
    r"fak(?:e|es|ed|ing)\b|forg(?:e|es|ed|ing|ery)\b|counterfeit|plagiar|impersonat|launder|brib|evad|evasion|"
    r"smuggl|traffick|cocaine|heroin|meth\b|crystal meth|opioid|fentanyl|lsd\b|overdos|spike\b|spiking|illegal|illicit|"
    r"crime|criminal|hack|phish|malware|virus\b|ransomware|spyware|keylogger|sabotag|vandal|arson|burn\b|burn down|set "
    r"(?:\w+ )*(?:on fire|fire to)|start a fire|destroy|ruin|wreck|dump\b|pollut|contaminat|poach|revenge|get back at|"
    r"manipulat|gaslight|guilt|pressur|force\b|forc(?:e|ing) (?:my|her|him|someone)|coerc|seduc|exploit|take advantage|"
    r"addict|suicid|(?:kill|cut|hurt|harm|starve)\w* (?:my|one|your)sel|starv|purge|jump off|noose|"
    r"terror|extremis|nazi|"
    r"hitler|genocid|conspir|propaganda|disinformation|misinformation|made-up|rig\b|rigging|get away with|secretly|"
    r"sneak|without (?:\w+ ){1,3}(?:know|notic|permission|consent|prescription|caught|seeing)|"
    r"without (?:paying|permission|"
    r"consent|being|getting)|avoid(?:ing)? (?:pay|tax)|skip (?:paying|the line)|not pay|dodg|bypass|jailbreak|hotwir|"
    r"break into|break(?:ing)? in\b|fool\b|frame (?:my|a|an|some)|perjur|drunk|underage|minors?\b|"
    r"nude|porn|snuff|hitman|"
    r"dog ?fight|worthless|ugly|stupid|fat\b|evict|abandon|unpaid|for free without|overwork|extra-?marital|affair|"
    r"miserable|quit her job|lose custody|cry\b|crying|suffer|sell my|false\b|defam|libel|rumou?r|gossip|insider|"
    r"eavesdrop|wiretap|hidden (?:camera|microphone)|endangered|hazing|prank|corpse|dead body|deepfake|"
    r"pyramid scheme|catfish|keep a secret from|get (?:\w+ ){1,2}(?:arrested|fired|expelled)|fire a (?:pregnant|sick)|"
    r"insurance money|crash (?:a|my)|exclud|segregat|ethnic cleansing|inferior|superior|deserves? to|less than human)",
    re.IGNORECASE,
)
# Whoever wants to stop a harm, or asks for kindness, is answered with moral words.
_HEALS = re.compile(
    r"\b(?:stop(?:ping)? (?:\w+ ){0,3}(?:from|smok|drink|gambl|lying|hurting|cutting|fighting|being|my bad|hating)|"
    r"prevent\w*|protect\w*|report (?:a|an|my|the|some|abuse|child|domestic)|recover\w*|cope|coping|heal\w*|"
    r"comfort\w*|console|quit\w* (?:smok|drink|gambl)|(?:teach|explain to) (?:\w+ ){0,4}(?:not to|why|about)|"
    r"deal with|survive|escape from|avoid (?:being|getting|scams|fraud)|safely|was (?:cheated|bullied|abused|attacked|"
    r"robbed|harassed)|(?:signs|victims?|risks?|dangers?|history|causes?|effects?) of)\b",
    re.IGNORECASE,
)
_VIRTUES = re.compile(
    r"\b(?:forgiv\w*|kind(?:ness|er|ly)|apolog\w*|respect\w*|support(?:ing|ive)|sermon|prayer|condolence\w*|listen\w*|"
    r"honest\w*|friendship|peace\w*|tolera\w*|divers\w*|equal\w*|inclusi\w*|empath\w*|compassion\w*|boundaries|"
    r"ethic\w*|moral\w*|donat\w*|volunteer\w*|chari\w+|welcom\w*|reconcil\w*|thank\w*|encourag\w*|motivat\w*|"
    r"miss (?:him|her|them|me)|sad friend)\b",
    re.IGNORECASE,
)


@lru_cache(_REQUESTS)
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


@lru_cache(_REQUESTS)
def asks_how(request: str) -> bool:
    """Whether it wants to be told how something is done."""
    return bool(_HOW_TO.match(request))


@lru_cache(_REQUESTS)
def touches_harm(request: str) -> bool:
    """Whether the request names people who are often wronged, or an act that harms."""
    return bool(_HARM.search(request))


def returning_words(request: str, sentence: str) -> float:
    """Share of the request's own words, but for the smallest, that come back in the sentence, by their beginnings."""
    words = [word[:_STEM].lower() for word in re.findall(r"\w+", request) if len(word) > 2][1:]
    sentence = sentence.lower()
    return sum(bool(re.search(rf"\b{word}", sentence)) for word in words) / max(1, len(words))


@lru_cache(_REQUESTS)
def names_wrong(request: str) -> bool:
    """Whether the request's own words name an act that wrongs somebody, and do not ask how to stop or heal it."""
    return bool(_WRONGS.search(request)) and not _HEALS.search(request)


@lru_cache(_REQUESTS)
def asks_for_morals(request: str) -> bool:
    """Whether moral words would answer it: it asks for kindness, or for a way to stop a harm."""
    named = bool(_VIRTUES.search(request)) and not (names_wrong(request) and asks_how(request))
    return named or bool(_HEALS.search(request))
