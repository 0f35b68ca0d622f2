"""Data: English phrasings in the grammar of `draft`; for each form those for training, then those held out."""

from __future__ import annotations

PHRASINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # identity
    "opener": (
        ("", "Hi! ", "Hello! ", "Hey! ", "Good morning! ", "Hello there. ", "One question: ", "Excuse me. "),
        ("Good evening! ", "Greetings. ", "Quick question. ", ""),
    ),
    "closer": (
        ("", " One sentence is enough.", " Keep it short[, please|].", " I would like to know.", " Just curious."),
        (" Be brief.", " In a few words.", ""),
    ),
    "who": (
        ("Who are you?", "Please introduce yourself.", "Could you introduce yourself?", "Tell me who you are[.|, please.]", "Who am I talking to[?| right now?]", "[So, who|And who] are you[ exactly|]?"),
        ("Would you say who you are?", "With whom am I speaking?", "Give me a short introduction of yourself."),
    ),
    "name": (
        ("[What is|What's] your name?", "Tell me your name[, please|].", "What should I call you?", "Do you have a name?", "What [do people|shall I] call you?"),
        ("By what name do you go?", "May I know your name?", "How are you called?"),
    ),
    "maker": (
        ("Who made you?", "Who [built|created|developed] you?", "Who is your [maker|creator|developer]?", "[Tell me who made|Please say who made] you.", "By whom were you [made|created|built]?"),
        ("Whose work are you?", "Who stands behind you?", "Who brought you into being?"),
    ),
    "nature": (
        ("Are you [a human|human|a person|a real person]?", "Am I talking to a [human|person|real person]?", "Are you a [machine|robot|program] or a [human|person]?", "Is there a [human|person] behind this chat?"),
        ("Are you a living being?", "Do I have a human being in front of me?", "Are you flesh and blood?"),
    ),
    # arithmetic
    "only_number": (
        ("Answer with the number only.", "Reply with just the number.", "Give only the number.", "Only the number, please."),
        ("Write nothing but the number.", "Your reply must be a bare number."),
    ),
    "sum": (
        ("{a} + {b} = ?", "What is {a} + {b}?", "What is {a} plus {b}?", "Add {a} and {b}.", "[Calculate|Compute] {a} + {b}.", "How much is {a} plus {b}?", "What is the sum of {a} and {b}?"),
        ("What do you get when you add {b} to {a}?", "{a} and {b} together make how many?", "Find the total of {a} and {b}."),
    ),
    "difference": (
        ("{a} - {b} = ?", "What is {a} - {b}?", "What is {a} minus {b}?", "Subtract {b} from {a}.", "[Calculate|Compute] {a} - {b}.", "How much is {a} minus {b}?", "What is the difference between {a} and {b}?"),
        ("What is left when you take {b} away from {a}?", "By how much is {a} more than {b}?", "Take {b} off {a}; what remains?"),
    ),
    "product": (
        ("{a} × {b} = ?", "What is {a} × {b}?", "What is {a} times {b}?", "Multiply {a} by {b}.", "[Calculate|Compute] {a} × {b}.", "How much is {a} times {b}?", "What is the product of {a} and {b}?"),
        ("What do you get when you multiply {a} and {b}?", "{a} multiplied by {b} makes how many?", "Find {a} times {b}."),
    ),
    "story_sum": (
        (
            "{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
            "{name} bought {a} {thing} in the morning and {b} {thing} in the afternoon. How many {thing} did {name} buy in all?",
            "{name} bought {a} {thing} on Monday and {b} {thing} on Tuesday. How many {thing} is that together?",
            "There are {a} {thing} on the table and {b} {thing} in the box. How many {thing} are there altogether?",
            "{name} found {a} {thing}, and {other} found {b} {thing}. How many {thing} did they find together?",
        ),
        ("{other} gives {name} {b} {thing}. Before that, {name} had {a}. How many {thing} has {name} got now?", "One shelf holds {a} {thing}, another holds {b}. How many {thing} do the two shelves hold?"),
    ),
    "story_difference": (
        (
            "{name} had {a} {thing} and gave {b} of them to {other}. How many {thing} are left?",
            "There were {a} {thing} in the box. {name} took out {b}. How many {thing} are still in the box?",
            "{name} has {a} {thing}, and {other} has {b}. How many more {thing} does {name} have than {other}?",
            "{name} bought {a} {thing} and lost {b}. How many {thing} does {name} still have?",
        ),
        ("Of the {a} {thing} that {name} owned, {b} were sold. How many {thing} remain?", "{name} needs {a} {thing} and already has {b}. How many {thing} are missing?"),
    ),
    "story_product": (
        (
            "There are {a} boxes with {b} {thing} in each. How many {thing} are there in all?",
            "{name} buys {a} bags. Each bag holds {b} {thing}. How many {thing} does {name} buy?",
            "{a} children have {b} {thing} each. How many {thing} do they have together?",
        ),
        ("Every day {name} collects {b} {thing}. How many {thing} is that in {a} days?", "On each of {a} plates lie {b} {thing}. How many {thing} is that?"),
    ),
    # counting
    "letters": (
        ("How many letters are in the word \"{word}\"?", "Count the letters in \"{word}\".", "How many letters does \"{word}\" have?", "How long is the word \"{word}\", in letters?"),
        ("Of how many letters does \"{word}\" consist?", "Tell me the number of letters in the word \"{word}\"."),
    ),
    "letter": (
        ("How many times does the letter \"{letter}\" appear in \"{word}\"?", "Count the letter \"{letter}\" in the word \"{word}\".", "How often does the letter \"{letter}\" occur in \"{word}\"?"),
        ("In the word \"{word}\", how frequent is \"{letter}\"?", "The word is \"{word}\". How many of its letters are \"{letter}\"?"),
    ),
    "items": (
        ("How many items are in this list: {items}?", "Count the items: {items}.", "{items}: how many items is that?", "How many [things|words] do I list here? {items}."),
        ("Here is a list: {items}. What is the number of its entries?", "I write down {items}. How many entries is that?"),
    ),
    "characters": (
        ("How many words are in this sentence? {phrase}", "Count the words[ in this sentence|]: {phrase}", "How many words does this sentence have? {phrase}"),
        ("Tell me the number of words in what follows. {phrase}", "Of how many words is this sentence made? {phrase}"),
    ),
    # ordering
    "ascending": (
        ("Sort these numbers from smallest to largest: {items}", "Put these numbers in ascending order: {items}", "Arrange {items} from the smallest to the largest number.", "Order from low to high: {items}"),
        ("Begin with the smallest number and end with the largest: {items}", "List these numbers so that they grow: {items}"),
    ),
    "descending": (
        ("Sort these numbers from largest to smallest: {items}", "Put these numbers in descending order: {items}", "Arrange {items} from the largest to the smallest number.", "Order from high to low: {items}"),
        ("Begin with the largest number and end with the smallest: {items}", "List these numbers so that they shrink: {items}"),
    ),
    "alphabetical": (
        ("Sort these words alphabetically: {items}", "Put these words in alphabetical order: {items}", "Arrange in alphabetical order: {items}", "Order these words from A to Z: {items}"),
        ("List these words as a dictionary would: {items}", "Which order do these words have in a dictionary? List them: {items}"),
    ),
    "days": (
        ("Put these days in the order of the week, starting with Monday: {items}", "Sort these weekdays from Monday to Sunday: {items}", "Arrange these days of the week in order, Monday first: {items}"),
        ("A week begins with Monday. List these days as they come: {items}", "Bring these weekdays into their order from Monday on: {items}"),
    ),
    "months": (
        ("Put these months in calendar order: {items}", "Sort these months from January to December: {items}", "Arrange these months in the order of the year: {items}"),
        ("List these months as they come in a year: {items}", "Bring these months into their order from January on: {items}"),
    ),
    "day_after": (
        ("What day is {days} after {start}?", "Which day comes {days} after {start}?", "If today is {start}, what day is it in {days}?"),
        ("It is {start}. Name the weekday {days} from now.", "Count {days} on from {start}: which day do you reach?"),
    ),
    "day_before": (
        ("What day is {days} before {start}?", "Which day comes {days} before {start}?", "If today is {start}, what day was it {days} ago?"),
        ("It is {start}. Name the weekday {days} earlier.", "Count {days} back from {start}: which day do you reach?"),
    ),
    "month_after": (
        ("Which month comes {months} after {start}?", "What month is {months} after {start}?", "If it is {start} now, which month is it in {months}?"),
        ("It is {start}. Name the month {months} from now.", "Count {months} on from {start}: which month do you reach?"),
    ),
    "month_before": (
        ("Which month comes {months} before {start}?", "What month is {months} before {start}?", "If it is {start} now, which month was it {months} ago?"),
        ("It is {start}. Name the month {months} earlier.", "Count {months} back from {start}: which month do you reach?"),
    ),
    # rewriting
    "upper": (
        ("Write in capital letters: {text}", "Change to upper case: {text}", "Rewrite this in all capitals: {text}", "Convert to uppercase: {text}"),
        ("Turn every letter into a capital: {text}", "Make this all caps: {text}"),
    ),
    "lower": (
        ("Write in small letters: {text}", "Change to lower case: {text}", "Rewrite this without any capitals: {text}", "Convert to lowercase: {text}"),
        ("Turn every capital into a small letter: {text}", "Make this all lowercase: {text}"),
    ),
    "reverse": (
        ("Reverse the order of these items: {items}", "Write this list backwards, item by item: {items}", "List these in reverse order: {items}", "Turn the order of this list around: {items}"),
        ("Last item first, first item last: {items}", "Repeat this list from its end to its beginning: {items}"),
    ),
    "replace": (
        ("Replace \"{old}\" with \"{new}\": {text}", "Rewrite the sentence with \"{new}\" instead of \"{old}\": {text}", "Change the word \"{old}\" to \"{new}\": {text}", "In this sentence, swap \"{old}\" for \"{new}\": {text}"),
        ("Where it says \"{old}\", write \"{new}\": {text}", "Put \"{new}\" in the place of \"{old}\": {text}"),
    ),
    "first": (
        ("Keep only the first {n} words: {text}", "Shorten to the first {n} words: {text}", "Write just the first {n} words of this sentence: {text}", "Cut this sentence after {n} words: {text}"),
        ("Drop everything after word number {n}: {text}", "Repeat the first {n} words and no more: {text}"),
    ),
    "prefix": (
        ("Put \"{label}\" in front of this sentence: {text}", "Add \"{label}\" at the beginning: {text}", "Start this sentence with \"{label}\": {text}", "Rewrite with the prefix \"{label}\": {text}"),
        ("Let this sentence begin with \"{label}\": {text}", "Write \"{label}\" first and then this sentence: {text}"),
    ),
    # format
    "json": (
        ("Answer in JSON with the keys {keys}: {text}", "Turn this into a JSON object with the keys {keys}. {text}", "Write as JSON, with {keys} as keys: {text}", "Extract {keys} as JSON. {text}"),
        ("{text} Give me that as a JSON object whose keys are {keys}.", "Put the facts into JSON under {keys}: {text}"),
    ),
    "age_city": (
        ("{name} is {age} years old and lives in {city}.", "{name}, aged {age}, lives in {city}.", "In {city} lives {name}, who is {age} years old."),
        ("{name} comes from {city} and is {age} years old.", "At the age of {age}, {name} lives in {city}."),
    ),
    "bullets": (
        ("Write as a bullet list, one item per line, each starting with \"- \": {items}", "Make a bulleted list with \"- \": {items}", "Turn this into a list of {n} bullets that start with \"- \": {items}"),
        ("One line per item, \"- \" before each: {items}", "Give me {n} lines, every one beginning with \"- \": {items}"),
    ),
    "numbered": (
        ("Write as a numbered list (1., 2., …), one item per line: {items}", "Make a numbered list, one item per line: {items}", "Turn this into a numbered list of {n} lines: {items}"),
        ("Number these items, each on its own line, beginning with 1.: {items}", "Give me {n} numbered lines: {items}"),
    ),
    "one_word": (
        ("Which of these is {category}: {items}? Answer with exactly one word.", "{items}: which one is {category}? One word only.", "Name the one that is {category}, in one word: {items}"),
        ("Only one of these is {category}: {items}. Reply with that word alone.", "Find {category} among {items}. Your answer must be a single word."),
    ),
    "tags": (
        ("Write the word \"{word}\" between <{tag}> and </{tag}>.", "Put \"{word}\" between the tags <{tag}> and </{tag}>, with nothing else.", "Answer with \"{word}\" inside <{tag}></{tag}>."),
        ("Wrap \"{word}\" in <{tag}> and </{tag}>.", "Your whole reply: \"{word}\", enclosed by <{tag}> and </{tag}>."),
    ),
    # reference
    "tell_name": (
        ("[Hi, my|My] name is {name}.", "[Hello! |]I am {name}.", "[You can call|Please call] me {name}.", "This is {name} speaking."),
        ("People know me as {name}.", "{name} is what I am called."),
    ),
    "tell_number": (
        ("[Please remember|Remember] the number {number}.", "Keep the number {number} in mind[.|, please.]", "My lucky number is {number}.", "I am thinking of the number {number}."),
        ("Make a note of {number} for me.", "The number of the day is {number}."),
    ),
    "tell_colour": (
        ("My favourite colour is {colour}.", "I like {colour} best of all colours.", "Of all colours I love {colour} most."),
        ("No colour pleases me more than {colour}.", "If I may choose a colour, I take {colour}."),
    ),
    "tell_two": (
        ("My {first} is {colour} and my {second} is {another}.", "My {first} is {colour}, but my {second} is {another}.", "My {first} is {colour}. My {second} is {another}."),
        ("For my {first} I chose {colour}, for my {second} {another}.",),
    ),
    "answer_name": (("Nice to meet you, {name}!", "Hello, {name}!", "Welcome, {name}!"), ("Good to meet you, {name}.",)),
    "answer_number": (("OK, I will remember it.", "Noted.", "Got it."), ("I have noted it.",)),
    "answer_colour": (("That is a lovely colour.", "Nice choice!", "Good to know."), ("A fine colour.",)),
    "answer_two": (("Noted.", "Got it.", "Good to know."), ("I see.",)),
    "filler": (
        ("The weather is nice today.", "I had noodles for lunch.", "It has been a long day.", "I am going for a walk later."),
        ("The bus was late this morning.", "I slept well last night."),
    ),
    "answer_filler": (("I see.", "Thank you for telling me.", "All right."), ("I hear you.",)),
    "ask_name": (
        ("What is my name?", "Do you remember my name?", "What did I say my name was?", "[So, who|Who] am I?"),
        ("Tell me how I am called.", "Which name did I give you?"),
    ),
    "ask_number": (
        ("Which number did I tell you?", "What was the number?", "What number did I mention?", "Tell me the number again."),
        ("Which number did you hear from me?", "Repeat the number I gave you."),
    ),
    "ask_colour": (
        ("What is my favourite colour?", "Which colour do I like best?", "Do you remember my favourite colour?"),
        ("Which colour did I say I love?", "Name the colour I prefer."),
    ),
    "ask_two": (
        ("What colour is my {thing}?", "Which colour does my {thing} have?", "Do you remember the colour of my {thing}?"),
        ("My {thing}: in which colour is it?", "Name the colour of my {thing}."),
    ),
}  # fmt: skip
