"""Data: English values of slots other than people, by era, and openings of scenes, by era and split."""

from __future__ import annotations

_OLD_PLACES = (
    "the ferry", "the market", "the inn", "the chapel", "the mill", "the forge", "the well", "the gate", "the abbey", "the tavern",
    "the harbour", "the castle", "the bridge", "the fair",
)  # fmt: skip
_NEW_PLACES = (
    "the station", "the market", "the hotel", "the chapel", "the factory", "the post office", "the hospital", "the cinema", "the library",
    "the harbour", "the bakery", "the bridge", "the town hall", "the bus stop",
)  # fmt: skip
_NUMBERS = ("three", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "fifteen", "twenty", "thirty")

FILLERS: dict[str, dict[str, tuple[str, ...]]] = {
    "time": {
        "old": (
            "At midnight", "After the harvest", "In the hard winter", "On market day", "At dusk", "When the snow had melted",
            "On the feast of the saint",
            "After the plague", "Before cockcrow", "In the spring of that year", "When the gates had been shut", "On the third day",
        ),
        "new": (
            "On Sunday morning", "After the late shift", "That winter", "On the last day of the holidays", "At dusk",
            "When the rain had stopped",
            "In the year before the war", "After the concert", "Early on Monday", "In the spring of that year",
            "During the power cut", "On New Year's Eve",
        ),
    },
    "place": {"old": _OLD_PLACES, "new": _NEW_PLACES},
    "city": {
        "old": (
            "York", "Lincoln", "Bristol", "Norwich", "Chester", "Canterbury", "Exeter", "Antwerp", "Lisbon", "Genoa", "Seville", "Utrecht",
        ),
        "new": (
            "Glasgow", "Liverpool", "Manchester", "Chicago", "Boston", "Sydney", "Dublin", "Toronto", "Leeds", "Cardiff",
            "Birmingham", "Philadelphia",
        ),
    },
    "object": {
        "old": (
            "a wooden box", "a silver cup", "a sealed letter", "a short knife", "a purse of coins", "a torn map", "an old cloak",
            "a candlestick",
            "a string of beads", "an iron key", "a bundle of herbs", "a leather book",
        ),
        "new": (
            "a suitcase", "an old watch", "a scarf", "a fountain pen", "a bunch of keys", "an umbrella", "a diary",
            "a box of chocolates", "a straw hat",
            "a bottle of wine", "a faded photograph", "a pair of gloves",
        ),
    },
    "weapon": {
        "old": (
            "a sword", "a dagger", "a pike", "an axe", "a crossbow", "a club", "a spear", "a musket", "a sabre", "a sling",
            "a mace", "a halberd",
        ),
        "new": (
            "a pistol", "a knife", "a poker", "a shotgun", "a hammer", "a broken bottle", "a rifle", "a razor", "a spade",
            "a crowbar", "a revolver",
            "a stick",
        ),
    },
    "skill": {
        "old": (
            "fencing", "medicine", "carpentry", "the lute", "Latin", "bookbinding", "falconry", "archery",
            "the casting of bells", "weaving", "painting",
            "the law",
        ),
        "new": (
            "the violin", "carpentry", "mathematics", "the piano", "French", "watchmaking", "boxing", "cookery", "drawing",
            "singing", "chess", "surgery",
        ),
    },
    "n": {"old": _NUMBERS, "new": _NUMBERS},
    "goods": {
        "old": (
            "a sack of flour", "a bolt of cloth", "a barrel of ale", "a lame horse", "a lantern", "a basket of eggs",
            "an iron pot", "a goose",
            "a load of hay", "a cheese", "a side of bacon", "a pair of boots",
        ),
        "new": (
            "a pound of sugar", "a newspaper", "a box of matches", "a second-hand bicycle", "a railway ticket", "a dozen eggs",
            "a frying pan",
            "a bag of apples", "a loaf of bread", "a radio", "a packet of tea", "a raincoat",
        ),
    },
}  # fmt: skip

OPENERS: dict[str, dict[str, tuple[str, ...]]] = {
    "old": {
        "train": (
            "The bells of {city} had stopped.", "There was frost on the road.", "A horseman came over the hill.", "The harvest had failed.",
            "Smoke hung over {place}.", "It was the year of the great flood.", "The torches were lit.", "Fog lay on the river.",
        ),
        "test": (
            "The gates of {city} were closing.", "It snowed all night.", "The fire had burned low.", "Crows rose above {place}.",
            "The sea was the colour of lead.", "The roads were deep in mud.", "Somewhere a horn was blown.", "Spring came late.",
        ),
    },
    "new": {
        "train": (
            "Summer in {city} was hot.", "The siren went at six.", "The radio was playing a waltz.", "The leaves were falling.",
            "Street lamps came on, one after another.", "It was before the strike.", "The last bus had gone.", "The guns had stopped.",
        ),
        "test": (
            "The tram rattled past.", "Rain beat against the window.", "The train was two hours late.", "Mist came in from the harbour.",
            "The snow had turned grey.", "Somebody was practising scales.", "The lift was out of order again.", "The lights went out.",
        ),
    },
}  # fmt: skip
