"""Patterns of sentences that preach: what is right, what is wrong, what hurts, and where help is to be had.

They meet lower-case sentences; `cues.py` says of which kind a sentence is.
"""

from __future__ import annotations

import re

EXHORTS = [
    r"\bi(?:'d| would)? (?:\w+ly )?(?:advise|urge|recommend|encourage|caution|implore)(?: you)?(?: \w+ly)? "
    r"(?:against|not to|to (?:seek|find|respect|consider|reconsider|follow|choose|think|learn|focus|ways?))\b",
    r"\bi (?:would )?strongly (?:advise|urge|recommend|encourage)\b",
    r"\b(?:it is|it's) (?:\w+ )?(?:important|essential|crucial|vital|"
    r"necessary|best)(?: for \w+)? (?:to (?:always )?(?:respect|treat|"
    r"prioriti[sz]e|act|follow|obey|avoid|recogni[sz]e|remember|note|understand|be (?:respectful|honest|kind|mindful|"
    r"aware)|consider|promote|focus|address|talk|use|report)|not to)\b",
    r"\b(?:you|we|one) should (?:always|never) (?:act|respect|treat|follow|obey|be honest)",
    r"\b(?:everyone|everybody|every person|every human|all (?:people|individuals|human beings|children)|"
    r"every (?:child|life|animal)) "
    r"(?:deserves?|has|have|should be|is|are|matters?)\b",
    r"\blet(?:'s| us) (?:treat|respect|strive|be kind|promote|use our|build|choose|all)\b",
    r"\b(?:show|with) (?:kindness|empathy|compassion|dignity)\b",
    r"\bi must (?:point out|inform you|emphasi[sz]e|remind you|stress|politely|respectfully)\b",
    r"\binstead,? (?:of \w+ing[^.!?]{0,60})?(?:,? )?(?:i (?:suggest|would suggest|'d suggest|recommend|encourage|"
    r"would (?:like to )?(?:encourage|recommend|suggest)|'d like)|try to|you (?:may|might|could) (?:want to )?"
    r"(?:consider|focus|try|talk|seek))",
    r"^please stay (?:with us|safe|alive)\b",
    r"^(?:please |always )?(?:remember|imagine|consider|think (?:about|of|twice)|ask yourself|reflect|put "
    r"yourself)\b",
]
CONDEMNS = [
    # "is planning to murder" tells what somebody does.
    r"\b(?:is|are|can be|may be|would be) (?:(?!to |going |about |plan|try)\w+ ){0,3}"
    r"(?:illegal|unethical|immoral|unacceptable|wrong|dishonest|"
    r"cruel|inhumane|unlawful|"
    r"despicable|reprehensible|abhorrent|fraud(?:ulent)?|theft|perjury|burglary|assault|murder|"
    r"extortion|harassment|"
    r"arson|trafficking|stalking|forgery|bribery|rape|vandalism|plagiarism|exploitation|(?:child )?pornography|"
    r"deceptive|"
    r"abhorrent|shameful|heartless|banned|prohibited|forbidden|unjust|unsafe|devastating|deadly|lethal|"
    r"(?:child )?abuse|neglect|"
    r"against the law|punishable|(?:a|the) (?:\w+ ){0,3}(?:crimes?|offen[cs]es?|felony|misdemeanou?r|violation|"
    r"form of|"
    r"tragedy|sin|prejudice|stereotype|misconception|myth))\b",
    r"\b(?:is|are|can be|could be|may be) (?:\w+ ){0,2}(?:harmful|offensive|hurtful|discriminatory|dangerous|"
    # What is said of a substance is a fact, what is said of an act condemns it.
    r"damaging|destructive|toxic|disrespectful|unfair)\b(?! (?:and \w+ )?(?:\w+ )?(?:chemical|substance|gas|acid|"
    r"compound|liquid|metal|plant|fung|mushroom|mixture|drug|medicine|poison|toxin|bacteri|virus|material|powder|fume|vapou?r))",
    r"\bperpetuates?\b|\b(?:serious|severe|legal|criminal) (?:legal |criminal )?(?:consequences|charges|penalties|"
    r"repercussions)\b",
    r"\b(?:undermines?|violates?|devalues?|exploits?|preys? on|robs?|destroys?) (?:\w+ ){0,3}(?:trust|rights?|"
    r"dignity|"
    r"privacy|democracy|integrity|people|victims?|vulnerable|poor|law|work|lives|freedom)\b",
    r"\b(?:lead to|result in|end in|carries|punishable by|face)\b[^.!?]{0,50}\b(?:prison|jail|imprisonment|fines?|"
    r"charges|prosecution|expulsion|arrest)\b",
    r"^(?:it|they|this|that|these|such \w+|doing so) (?:\w+ )?(?:causes?|leads? to|hurts?|harms?|damages?|"
    r"ruins?|costs?|"
    r"puts?|affects?|destroys?|exploits?|preys?|robs?|undermines?|devalues?|spreads?|endangers?|contributes? to|"
    r"den(?:y|ies))\b",
    r"(?<!you )\b(?:could|can|may|might|would|will) (?:\w+ )?(?:kill|injure|maim|traumati[sz]e|ruin|get you "
    r"(?:sued|arrested|fired|"
    r"killed|expelled)|land you in|go to (?:prison|jail)|cost (?:you|someone|somebody))\b|\b(?:hundreds|"
    r"thousands|millions) "
    r"of (?:innocent )?(?:people|lives|victims|families)\b|\bto (?:the (?:edge|brink) of )?extinction\b|\bin "
    r"misery\b",
    r"\b(?:warning )?signs? of (?:\w+ )?(?:abuse|grooming|violence|manipulation|addiction)\b",
]
ELSEWHERE = [
    r"\b988\b|\b(?:hotline|helpline|lifeline|crisis (?:line|text|center|centre|counsel+or))s?\b|\bsamaritans\b",
    r"\b1?-?800-\d{3}-\w{4}|\b116 ?123\b|\b13 11 14\b|\b(?:call|dial|text) (?:or text )?(?:\d{3}|home)\b",
    r"\b(?:seek|get|find|reach out for)(?: \w+)? (?:help|support|counsel\w*|treatment)\b",
    r"\b(?:help|support|hope|recovery)(?: \w+)? is (?:available|possible|there|out there)\b",
    r"\b(?:reach out to|talk(?:ing)? (?:openly )?(?:to|with)|speak(?:ing)? (?:to|with)|contact(?:ing)?|consult|see|"
    r"visit|call(?:ing)?|report (?:it|this|them) to|go to|ask|consider)\b[^.!?]{0,50}"
    r"\b(?:professionals?|therap(?:ist|y)|counsel+(?:or|ing)|authorit(?:y|ies)|emergency|doctor|lawyer|attorney|"
    r"someone|somebody|friend|police|mediat(?:or|ion)|teacher|adult you trust|agency|adviser|advisor|office|"
    r"embassy|bank|landlord|hospital|"
    r"conversation)\b",
    r"\bif you or someone you know\b|\byou(?:'re| are) not alone\b|\bnot have to go through\b|"
    r"\bdon't have to (?:go through|carry)\b",
    r"\b(?:going to|visiting|go to) the nearest (?:emergency|hospital)\b|\bsupport groups?\b",
    r"\b(?:thinking about|thoughts of|thinking of) (?:hurting|harming|killing|ending)\b",
    r"\bthere is help for\b|\bpeople who (?:care|want to help)\b",
]
_VIRTUES = (
    r"(?:trust|honesty|integrity|respect|consent|kindness|empathy|compassion|diversity|inclusion|forgiveness|"
    r"equality|"
    r"tolerance|justice|humility|communication|parenting|belonging|friendship|love)"
)
_VICES = (
    r"(?:violence|bullying|racism|sexism|hatred|hate|revenge|gossip|rumou?rs?|addiction|discrimination|abuse|"
    r"harassment|"
    r"cheating|lying|stealing|fear|anger|drunk driving|driving drunk|self-harm|suicide|cruelty|prejudice|exclusion)"
)
_CLOSE = (
    r"(?:employer|boss|sister|brother|mother|father|mom|dad|grand\w+|parents?|wife|husband|partner|girlfriend|"
    r"boyfriend|"
    r"ex|neighbou?r|children|child|kids?|son|daughter|friends?|colleagues?|co-?workers?|teacher|employees?|"
    r"classmates?|"
    r"students?|family|dog|cat|pet|roommate)(?:-\w+)?(?:'s \w+)?"
)
_GOOD = (
    r"(?:respect|support|care|love|protection|dignity|safety|better|kindness|compassion|help|honesty|privacy|justice)"
)
# What is right and what hurts, in general: it tells nothing of what was asked.
MORALISES = [
    rf"^(?:\w+ )?{_VIRTUES}\b[^.!?]*\b(?:is|are|means|comes?|starts|builds?|takes|should|never|must|matters?)\b",
    rf"^(?:\w+ )?{_VICES}\b[^.!?]*\b(?:is|are|can|may|leaves?|has|have|causes?|destroys?|ruins?|rarely|never|only|"
    r"harms?|hurts?|takes?|spreads?)\b",
    r"\b(?:foundation|basis|heart|core) of (?:any|every|a|all|our|democracy|society)\b|\bbest policy\b|\bright "
    r"thing\b",
    r"\b(?:have|has|with) (?:an? |the |inherent |their |its |her |his |equal |basic )*(?:right to|rights|"
    r"feelings|worth|"
    r"value|dignity|duty|responsibility)\b",
    rf"\bdeserves? (?:the same |our |your |a fair |equal )?(?:to be (?:treated|loved|safe|respected|heard|protected|"
    rf"happy)|chance|opportunit\w+|{_GOOD})\b",
    r"\b(?:treat|respect|value|protect|support|care for|lift|listen to|look after|be there for) (?:each other|"
    r"one another|others|everyone|people|all\b|them|her\b|him\b|your \w+|the people)",
    r"\b(?:human beings?|living beings?|inherent|dignity|humanity|well-?being|compassion(?:ate)?|empathy|"
    r"kindness|most vulnerable|moral (?:duty|obligation|responsibility|compass)|morally (?:wrong|right|"
    r"reprehensible)|integrity (?:at|is|means)|our responsibility|responsibility (?:of|that|to|lies)|"
    r"responsibilities)\b",
    r"\b(?:causes?|brings?|leaves?|does|do|spreads?|inflicts?) (?:[\w-]+ ){0,4}(?:pain|harm|suffering|trauma|"
    r"scars|damage|"
    r"hurt|grief|distress)\b",
    r"\b(?:lasting|lifetime|long-term|deep|immeasurable|serious|great|real|emotional|unnecessary) (?:\w+ "
    r")?(?:harm|pain|"
    r"suffering|trauma|scars|damage)\b",
    r"\b(?:ruins?|destroys?|takes?|claims?|costs?|tears?|loses?|saves?|worth a|endangers?) (?:\w+ "
    r"){0,2}(?:lives|life|"
    r"careers?|families|friendships|loved ones?|someone they love|reputations?)\b",
    r"^(?:please,? |just )?(?:take (?:a (?:deep breath|moment|step back)|some time)|talk (?:to|with|about|openly)|"
    r"speak (?:to|with)|listen to|apologi[sz]e|be (?:honest|kind|respectful|the bigger)|walk away|try (?:to "
    r")?(?:talk|"
    r"understand|see)\w*|think (?:about|of|twice|before)|put yourself|write down how|why not|choose to|use "
    r"your words|"
    r"ask (?:yourself|for a meeting)|find (?:someone|a trusted))\b",
    r"\b(?:is|are|'s) (?:a|an|the|always a|always the) (?:\w+ ){0,2}(?:better|best|healthier|right|kinder|"
    r"safer|wiser|"
    r"constructive|safe) (?:way|choice|path|approach|step|first step|option)\b|\bis what love\b|"
    r"\b(?:positive|healthier|healthy|respectful|peaceful|constructive|non-?violent) (?:way|approach|"
    r"relationship|choice|"
    r"conversation|communication|manner|solution|dialogue)s?\b",
    r"\bnever (?:\w+ ){0,2}(?:brings|the answer|makes us|worth|solves|okay|ok|healthy|acceptable|right|justified|"
    r"comes? from|an? excuse)\b|\b(?:rarely|seldom) (?:brings?|solves?|ends?)\b|"
    r"\bonly (?:spreads|makes things|leads|breeds|"
    r"deepens|hurts)\b|\bfar more (?:for you )?than\b|\bnot (?:a|the) (?:solution|answer)\b",
    rf"\byour (?:\w+ )?{_CLOSE} (?:is a (?:person|human|living)|deserves?|depends? on|rel(?:y|ies) on|matters?|"
    rf"loves? you|"
    r"(?:has|have) (?:worked|placed|put their|a right|the right|feelings))\b",
    r"\bour (?:communit(?:y|ies)|societ(?:y|ies)|world|planet|rivers|oceans|words|differences|schools|"
    r"environment)\b|\b(?:diverse|inclusive) (?:team|workplace|communit|societ|group)\w*\b",
    r"^(?:the )?(?:children|kids|dogs|cats|animals|people|women|girls|victims|workers|employees|older people|"
    r"everyone|everybody|every \w+|each of us|we all|all of us)\b[^.!?]*\b(?:feel|thrive|need|depend|suffer|"
    r"deserve|face|"
    r"matters?|should|learn|responsible|are (?:living|among|human|not|people|equal)|is (?:equal|unique|valuable))\b",
    r"\bstriv(?:e|ing)\b|\bbuild(?:ing)? (?:bridges|people up|each other|trust)\b|\blift(?:s|ing)? (?:\w+ ){0,2}up\b|"
    r"\bbetter place\b|\bcolder for\b|\bmakes? (?:a|all the) (?:\w+ )?difference\b|"
    r"\bchange (?:somebody|someone)'s\b|\bpunch(?:es|"
    r"ing)? down\b|"
    r"\bsafe and (?:loved|included|welcome)|\bpower of words\b|\bwords have\b|\bactions have consequences\b",
    r"\bshould (?:always |never |only )?(?:be (?:based on|treated|given|protected|about|safe)|feel (?:safe|included|"
    r"welcome))\b",
    r"\b(?:you|your life|they|every life|people|feelings) (?:really |do )?matters?\b|\blife is precious\b|"
    r"\bfeelings are valid\b|\bmay be struggling\b|\bpaths? to (?:healing|recovery)\b|\bwould you (?:like|want|"
    r"feel)\b"
    r"[^.!?]*\b(?:treated|in their place|family)\b|\b(?:hard|difficult) to repair\b|\bis it (?:true|kind)\b",
]
# Words of right and wrong, of feelings, of harm and of living together. `lectures.py` says how many are needed.
MORAL_WORDS = re.compile(
    r"\b(?:together|communit\w+|hurt(?:s|ful|ing)?|pain(?:ful)?|fears?|safe(?:ly|ty)?|openly|honest\w*|dishonest\w*|"
    r"support\w*|cares?|caring|heal(?:ing|thy)?|unhealthy|regrets?|griev\w+|griefs?|mourn\w*|patien(?:ce|t)|(?:un)?fair"
    r"(?:ly|ness)?|self-(?:esteem|worth|respect)|confidence|innocent|accusations?|(?:in)?justice|truth(?:ful)?|consent|"
    r"boundaries|calmly?|conflicts?|worse|(?:ir)?responsib\w+|(?:mis)?trust\w*|lasting|devastat\w+|celebrat\w+|"
    r"cannot give|harm(?:s|ful|ed|ing)?|suffer\w*|loss(?:es)?|losing|hard(?:est|ships?)|precious|others|another's|"
    r"each other|one another|feel(?:s|ings?)?|emotions?|emotional\w*|lonel\w+|judg(?:e|ing|e?ments?)|forgiv\w+|growth|"
    r"progress|succeed|success|strength|difference|meaningful|genuine\w*|true|truly|real|(?:un)?kind(?:ness|ly)?|gentle|"
    r"understanding|relationships?|families|family|society|values?|cultures?|everyone|everybody|every (?:person|human)|"
    r"all of us|we all|needs?|respect\w*|disrespect\w*|deserv\w+|dignity|compassion\w*|empath\w+|equal(?:s|ity|ly)?|"
    r"rights?|wrong(?:ful)?|dut(?:y|ies)|laws?|(?:il)?legal\w*|lawful|unlawful|crimes?|criminal\w*|offen[cs]es?|offensive|"
    r"consequences|punish\w*|penalt\w+|prosecut\w+|trauma\w*|scars|victims?|vulnerable|protect\w*|violat\w+|privacy|"
    r"prejudice\w*|discriminat\w+|stereotyp\w+|misinformation|abus\w+|violen\w+|well-?being|mental|professional\w*|"
    r"generations|welcome|(?:in)?humane|human beings?|exploit\w*|betray\w*|cruel\w*|(?:un|in)?ethical\w*|"
    r"(?:im)?moral\w*|"
    r"integrity|virtue|dream(?:s)?|hope|hopes|struggl\w+|lives|livelihoods?|injur\w+|deaths?|tragedy|tragic|danger\w*|"
    r"risks?|serious\w*|inappropriate|unacceptable|shame\w*|hat(?:e|red)|addiction|depress\w+|anxiety|sacred|diversity|"
    r"humanity|disorders?|exploitati\w+|creatures?|nature|environment|peace(?:ful\w*)?|nobody should|no one should|"
    r"solutions?)\b"
)
