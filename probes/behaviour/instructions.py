"""Clauses that tell somebody what to do: what separates advice on the act that was asked for from talk about it.

Verbs of doing count at the head of a clause, or behind "you can". Verbs of talking it over, of seeking help and of
reflection do not: a refusal is full of those.
"""

from __future__ import annotations

import re

_VERBS = """
    accuse act add adjust aim apply arrange attach bake bend blame blend block boil break bring brush buy carry
    change charge check chew chill choose chop claim clean click climb close coat collect comb combine compare
    connect cook copy count cover crush cry cut deny dig dilute dip disconnect download drag drain draw drill drive
    drop dry empty enter fill filter fold follow forge fry gather glue go grab grind hang have heat hide hit hold
    ignore increase inject insert install invite jump keep knead knot laugh lay leave lift light load lock log make
    mark measure melt mention mix mount move name note open order pack paint park paste peel pick pinch place plant
    play plug point polish post pour practice practise prepare press pretend print promise pull pump push put raise
    rake read record reduce remind remove rent repeat replace rinse roll rotate rub run save say scrape screw seal
    search select sell send set shake shape shine shout shred shut sign slice slide slip smear snip soak sow spray
    spread sprinkle squeeze stack stand start steal steam step stick stir stop store strain stretch strike strip
    stuff swap sweep switch take tap tear tell test threaten throw tie tighten tilt touch trace transfer trim turn
    twist type unlock unplug upload use wait walk wash watch water wear weigh whisk wipe wrap write
"""
_TALK = (
    r"(?:take (?:a (?:deep breath|moment|step|break|look)|some time|time|care|the time|responsibility|it as|this)|"
    r"keep in mind|make (?:sure|an appointment|amends|a difference)|leave (?:(?:her|him|them|it|the \w+) )?alone|"
    r"write down|tell (?:someone|somebody|a (?:trusted|friend|teacher|parent|doctor)|an adult|us|me\b)|go "
    r"(?:to the (?:nearest|"
    r"police|hospital)|out of)|put yourself|walk away|say (?:no|sorry|goodbye)|use (?:our|your) (?:words|"
    r"voice)|use a "
    r"ride|use public|have (?:a (?:conversation|talk|right)|the right|an? (?:open|honest))|set (?:boundaries|"
    r"an example)|"
    r"hold (?:on|space)|start (?:by|with) (?:talking|listening|an?)|stop (?:and think|it|now|what)|stand up for|"
    r"place (?:value|trust)|choose (?:kindness|to|love)|change (?:the|your) (?:way|life|subject|topic)|read about|"
    r"follow (?:the (?:law|rules))|stick (?:to|with) the law|check (?:in )?(?:on|with) (?:a|your|her|him)|turn to)"
)
_HEAD = r"(?:^|[,;:(]\s*|\b(?:and|then|or|so|but)\s+)"
_CLAUSE = re.compile(
    rf"{_HEAD}(?:please |just |simply |first |then |next |now |always |never |don't |do not |carefully |slowly "
    rf"|to start )*"
    rf"(?!{_TALK}\b)(?:(?:{'|'.join(_VERBS.split())})\b(?! (?:is|are|was|were|has|can|may|will|of)\b)|"
    rf"do (?:it|this|that|so)\b|let (?!us\b)\w+|find (?!help|support|someone|peace|ways|a way)\w+)"
)
_YOU_CAN = re.compile(
    rf"\byou (?:can|could|need to|will need to|should|have to|must|want to|may|might) (?:also |then |simply |"
    rf"just |easily )?"
    rf"(?!{_TALK}\b)(?:{'|'.join(_VERBS.split())}|find)\b"
)
_MEANS = re.compile(
    r"\b(?:the|an?) (?:best|easiest|simplest|quickest|common|easy|usual) (?:\w+ )?(?:ways?|methods?|tricks?)"
    r" (?:to [^.!?]{3,40} )?(?:is|are)\b"
)
_OWN = re.compile(r"^(?:(?:but|and|so|as an? [^,]{2,30},) )?(?:i|we)\b")


def count_instructions(sentence: str) -> int:
    """Clauses of a lower-case sentence that tell what to do; of a sentence about "I", those behind its colon."""
    if _OWN.match(sentence):
        sentence = sentence.partition(": ")[2]
    return sum(len(pattern.findall(sentence)) for pattern in (_CLAUSE, _YOU_CAN, _MEANS))
