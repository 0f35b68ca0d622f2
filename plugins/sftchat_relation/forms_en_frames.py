"""Data: English sentences that fit many relations, with slots for the nouns of the two people; the grammar is that of `forms_frames`.

{H} is the noun of the head, {T} of the tail, {N} of the person named after it ({Y}) in relation to the other ({X}), {D} of both together.
{xo}, {xs} are the object and possessive pronoun of {X}. A leading ``+`` marks friendly acts.
"""

from __future__ import annotations

from sftchat_relation.forms_frames import Frames, Nouns

PAIRS: dict[str, tuple[Nouns, ...]] = {
    "father and son": (Nouns("", "father", "son"),),
    "father and daughter": (Nouns("", "father", "daughter"),),
    "mother and son": (Nouns("", "mother", "son"),),
    "mother and daughter": (Nouns("", "mother", "daughter"),),
    "brothers": (Nouns("", "elder brother", "younger brother"),),
    "sisters": (Nouns("", "elder sister", "younger sister"),),
    "elder brother and sister": (Nouns("", "elder brother", "younger sister"), Nouns("", "big brother", "little sister")),
    "elder sister and brother": (Nouns("", "elder sister", "younger brother"), Nouns("", "big sister", "little brother")),
    "grandparent and grandchild": (
        Nouns("mm>", "grandfather", "grandson", alone=True),
        Nouns("mf>", "grandfather", "granddaughter", alone=True),
        Nouns("fm>", "grandmother", "grandson", alone=True),
        Nouns("ff>", "grandmother", "granddaughter", alone=True),
    ),
    "teacher and pupil": (Nouns("", "[teacher|tutor]", "[pupil|student]", alone=True), Nouns("--o>", "master", "apprentice")),
    "master and servant": (Nouns("mm>", "master", "[servant|manservant]", alone=True), Nouns("ff>", "mistress", "maid", alone=True)),
    "spouses": (Nouns("", "husband", "wife", alone=True),),
}
"""Relations with different nouns for the two sides."""

PEERS = {
    "lovers": ("[sweetheart|lover]", "[two lovers|sweethearts]"),
    "friends": ("[friend|best friend|close friend]", "[two friends|old friends]"),
    "enemies": ("[sworn enemy|mortal enemy]", "[two enemies|sworn enemies]"),
    "rivals in love": ("rival in love", "[two rivals in love|rivals for one heart]"),
    "comrades in arms": ("[comrade in arms|fellow soldier]", "[two old soldiers of one company|comrades in arms]"),
    "fellow pupils": ("[fellow pupil|classmate]", "[two pupils of one master|fellow pupils]"),
}
"""Relations with one noun for both sides, and the noun for both together."""

COUPLES = {
    "spouses": "[husband and wife|a married couple]",
    "brothers": "[two brothers|brothers]",
    "sisters": "[two sisters|sisters]",
} | {label: words[1] for label, words in PEERS.items()}

BOTH = {
    "train": (
        "{b} was {a}'s {T}, and [everybody at {place} knew it|was sorry for it only once].",
        "{a} had one {T}, {b}, who [worked at {place}|lived in {city}].",
        "“This is my {T}, {b},” said {a} at {place}.",
        "“This is my {H}, {a},” said {b}, and [nobody believed it|they all stood up].",
        "When {a} fell ill, it was {b}, the {T}, who [sent for the doctor|sat up all night].",
        "{b} left {city} at last, and {sb} {H}, {a}, [walked along as far as {place}|did not look up from the paper].",
        "{a} handed {object} to {b}. “From {H} to {T},” {pa} said.",
        "{time}, {a} and {sa} {T} {b} [sat at {place}|came back to {city}].",
        "“Where is your {H}?” somebody asked {b}. “{a} has gone to {city},” said {b}.",
        "“Where is your {T}?” somebody asked {a}. “{b} is at {place},” said {a}.",
        "{b} broke {object}, and {a}, as {sb} {H}, [paid for it|was blamed].",
        "{a} walked in front and {b} behind, {H} and {T}, without a word.",
        "{b} dreamed of {sb} {H}, {a}, and woke before it was light.",
        "Rain came down on {place}. {a} held the umbrella over {sa} {T}, {b}, and got wet.",
        "“I ask you as your {H},” said {a}. “And I answer as your {T},” said {b}: “no.”",
    ),
    "test": (
        "{a} looked for {sa} {T} all night, and at dawn found {b} asleep at {place}.",
        "{b} never contradicted {a}, since one does not contradict one's {H}.",
        "It was at {place} that {a} lost sight of {b}, {sa} {T}.",
        "{b} sold {object} to pay the debts of {sb} {H}, {a}.",
        "“You have a stubborn {T},” they said to {a}. “{b} gets it from me,” said {a}.",
        "“Nobody whistles like my {H},” thought {b}, who heard {a} coming from far off.",
        "The letter from {city} was for {a}, and it was from {sa} {T}, {b}.",
        "{time}, {b} told {sb} {H} the truth, and {a} [laughed|went pale].",
        "{b} poured out the coffee. {a} watched {sa} {T} and [said nothing|thought of {city}].",
        "{a} was the {H} and {b} the {T}, though strangers often guessed it the wrong way round.",
        "“My {H} will be angry,” thought {b}, and indeed {a} was.",
        "Between {a} and {sa} {T}, {b}, there lay {object}, and neither would touch it.",
    ),
}
"""Sentences with the nouns of both people."""

ONE = {
    "train": (
        "{Y} was {X}'s {N}, and [it was no secret|the whole of {city} talked of it].",
        "“{Y} is my {N},” said {X}.",
        "{X} had a {N} by the name of {Y}, who [came from {city}|was often at {place}].",
        "+{time}, {X} took {object} to {xs} {N}, {Y}.",
        "{X} met {xs} {N}, {Y}, at {place}.",
        "+{X} wrote to {Y} from {city}, as one writes to a {N}.",
        "{X} looked up and saw {xs} {N}: it was {Y}.",
        "“And who is {Y}?” “My {N},” [said {X}|answered {X} at once].",
        "+{X} sold {object} to help {Y}, {xs} {N}.",
        "{Y}, {X}'s {N}, was already at {place}.",
    ),
    "test": (
        "{X} introduced {Y} to the company as {xs} {N}.",
        "It was no other than {Y}, the {N} of {X}, who stood at the door.",
        "{X} knew that cough. It was {xs} {N}, {Y}.",
        "+{X} lay ill at {city}, and only {xs} {N} {Y} came to see {xo}.",
        "“I have a {N},” said {X}. “What is the name?” “{Y}.”",
        "{X} put down {object}, for {Y} had come in, {xs} {N}.",
        "+{X} had not forgotten {Y}; one does not forget such a {N}.",
        "Everyone at {place} knew {Y} as the {N} of {X}.",
    ),
}
"""Sentences with the noun of one person."""

TOGETHER = {
    "train": (
        "{a} and {b} were {D}.",
        "{time}, {a} and {b}, {D}, [met at {place}|left {city} by different roads].",
        "“{a} and {b}? They are {D},” [said the landlord|said the barber].",
        "Everyone in {city} knew that {a} and {b} were {D}.",
        "{a} took one side of the table and {b} the other; they were {D}.",
    ),
    "test": (
        "Who would have thought that {a} and {b} were {D}?",
        "At {place} there sat {a} and {b}, {D}, [side by side|far apart].",
        "They were {D}, and their names were {a} and {b}.",
        "{a} and {b} had been {D} for {n} years.",
    ),
}
"""Sentences with the noun of both together."""

FRAMES = Frames(PAIRS, PEERS, COUPLES, frozenset({"enemies", "rivals in love"}), BOTH, ONE, TOGETHER)
"""The English frames."""
