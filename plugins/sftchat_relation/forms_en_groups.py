"""Data: English sentences that state several relations among three people, by split.

The grammar is that of `forms`, with ``_`` for spaces in labels.
"""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "train": (
        "mfm abspouses acfather_and_son bcmother_and_son>{a} and his wife {b} had one son, {c}, and [spoiled him|feared for him].",
        "mff abspouses acfather_and_daughter bcmother_and_daughter>"
        "{a} and {b} had been married for {n} years when their daughter {c} was born.",
        "mmf abfather_and_son acfather_and_daughter bcelder_brother_and_sister>"
        "{a} had a son, {b}, and a daughter, {c}; the boy was the elder, and his sister did as she liked.",
        "mmm abfather_and_son acfather_and_son bcbrothers>"
        "{a}'s two sons, {b} and {c}, were brothers who agreed only in disobeying their father.",
        "mff abfather_and_daughter acfather_and_daughter bcsisters>"
        "{a} had two daughters, {b} and {c}, and the sisters ran the house while their father slept.",
        "ffm abmother_and_daughter acmother_and_son bcelder_sister_and_brother>"
        "{a} sent her daughter {b} to look for her son {c}; the girl found her little brother at {place}.",
        "--- abteacher_and_pupil acteacher_and_pupil bcfellow_pupils>"
        "{a} taught {skill} to two pupils, {b} and {c}, and the fellow pupils [envied each other|shared one candle].",
        "--- abfriends acfriends bcfriends>"
        "{a}, {b} and {c} were three friends, and [each would have died for the others|met every week at {place}].",
        "mmm abcomrades_in_arms accomrades_in_arms bccomrades_in_arms>"
        "{a}, {b} and {c} had fought in one platoon, all three of them, and [never boasted of it|carried the scars].",
        "mfm ablovers acrivals_in_love>{a} and {b} were in love, but {c} loved her too, and he hated {a} for a rival.",
        "mmm abfather_and_son acenemies>{a} hid his son {b} in the cellar, and went out alone to meet {c}, his deadly enemy.",
        "fmm abgrandparent_and_grandchild acgrandparent_and_grandchild bcbrothers>"
        "{a} called her grandsons, {b} and {c}; the two brothers came with muddy boots, and Grandmother sent them out again.",
        "ff- abmaster_and_servant bcfriends>{b}, the maid of {a}, had a good friend, {c}, and told {oc} everything.",
        "mm- abfather_and_son cbteacher_and_pupil>{a} brought his son {b} to {c}, who took the boy as a pupil and taught him {skill}.",
        "mfm abspouses acfriends>{a} had hardly sat down with his wife, {b}, when his old friend {c} came in without knocking.",
        "mmf abbrothers bcspouses>{a} went to see his brother {b}, and found only his brother's wife, {c}, at home.",
    ),
    "test": (
        "mfm abspouses acfather_and_son bcmother_and_son>"
        "{c} was the only child of {a} and {b}, a married couple who kept an inn; the boy looked like neither of them.",
        "mff acfather_and_daughter bcmother_and_daughter abspouses>"
        "When {c} was to be married, her father, {a}, wept, and her mother, {b}, told her husband to stop it.",
        "mmf abfather_and_son acfather_and_daughter bcelder_brother_and_sister>"
        "{b} and {c}, brother and sister, he the elder by a year, stood by their father's chair, but {a} did not wake.",
        "mmm abfather_and_son acfather_and_son bcbrothers>"
        "“The farm is for {b}, and the boat is for {c},” {a} told his sons, and the brothers looked at the floor.",
        "fff abmother_and_daughter acmother_and_daughter bcsisters>"
        "{a} sewed all night for her daughters, {b} and {c}, so that the sisters could go to the dance.",
        "--- abteacher_and_pupil acteacher_and_pupil bcfellow_pupils>"
        "{b} and {c} were fellow pupils of {a}, and their teacher made them play the same piece until they hated it.",
        "--- abfriends acfriends bcfriends>Nothing could part the three friends: {a} sang, {b} danced, and {c} passed the hat round.",
        "mmm abcomrades_in_arms accomrades_in_arms bccomrades_in_arms>"
        "Of the men who had held {place} together there were three left, {a}, {b} and {c}, old comrades, and they drank to the others.",
        "mfm ablovers acrivals_in_love>"
        "{a} kissed {b} on the steps of the theatre, and {c}, who loved her and had long been {a}'s rival, saw it from across the street.",
        "ffm abmother_and_daughter acenemies>"
        "{a} pushed her daughter {b} behind her. “You will have to kill me first,” she told {c}, her oldest enemy.",
        "mmf abgrandparent_and_grandchild acgrandparent_and_grandchild bcelder_brother_and_sister>"
        "Grandfather was called {a}, and he had {b} on one knee and {c}, the boy's little sister, on the other.",
        "ff- abmaster_and_servant acfriends>{a} sent her maid, {b}, to open the door to {c}, a dear friend of hers.",
        "mm- abfather_and_son cbteacher_and_pupil>"
        "{a} would not hear of it, but his son {b} went on taking lessons in {skill} from {c}, his teacher.",
        "mf- bcenemies abspouses>{b} and {c} were mortal enemies, and her husband, {a}, [was tired of it|kept out of it].",
        "mmf abbrothers acspouses>{a} came at Christmas with his wife, {c}, and his brother {b} met them at the station.",
    ),
}
