"""How English words the frames. A lexicon entry lists its forms, separated by `|`, in the order of FORMS."""

from data_prep.grammar.frames import WEEKDAYS
from data_prep.grammar.numerals import ordinals, spelled

FORMS: dict[str, tuple[str, ...]] = {}

# A value that is not listed is its own word: "station" is "station".
FOODS = ("coffee", "tea", "beer", "soup", "salad", "cake", "pizza", "sandwich")
LEXICON: dict[str, dict[str, str]] = {
    "day": ordinals("en"),
    "number": spelled("en"),
    "digit": spelled("en"),
    "addend": spelled("en"),
    "food": {food: f"a {food}" for food in FOODS}
    | {"apple": "an apple", "orange": "an orange", "egg": "an egg", "ice cream": "an ice cream"},
    "when": {day: f"on {day}" for day in WEEKDAYS},
    "weather": {
        "cold": "it is cold",
        "hot": "it is hot",
        "rain": "it is raining",
        "snow": "it is snowing",
        "wind": "it is windy",
    },
}


def time_forms(hour: int, minute: int) -> str:
    """Return the forms of a time: 3:00 -> "three o'clock", 3:15 -> "quarter past three"."""
    word = spelled("en")[str(hour)]
    return {0: f"{word} o'clock", 15: f"quarter past {word}", 30: f"half past {word}"}[minute]


TEMPLATES: dict[str, str] = {
    "where_is": "where is the {place}",
    "get_to": "how do i get to the {place}",
    "next_to": "the {place} is next to the {place2}",
    "on_side": "the {place} is on the {side}",
    "turn": "turn {side} after the {place}",
    "going_to": "we are going to the {place} {when}",
    "far": "the {place} is {number} kilometers from here",
    "at_place": "my {person} is at the {place}",
    "works": "{name} works at the {place}",
    "open_at": "the {place} opens at {time}",
    "closed": "the {place} is closed on {weekday}",
    "it_is": "it is {time}",
    "today_is": "today is the {day} of {month}",
    "event_at": "the {event} is on {weekday} at {time}",
    "event_date": "the {event} is on the {day} of {month}",
    "event_begins": "the {event} begins at {time}",
    "waiting": "we have been waiting for {number} {unit}",
    "leaves": "the {vehicle} to {city} leaves at {time}",
    "arrives_from": "the {vehicle} from {city} arrives {when}",
    "live_in": "i live in {city}",
    "lives_in": "my {person} lives in {city}",
    "arrives": "my {person} arrives {when}",
    "weather_in": "{weather} in {city}",
    "costs": "the {thing} costs {number} euros",
    "need": "i need {number} {plural}",
    "have": "we have {number} {plural}",
    "room_number": "i am in room {number}",
    "age": "{name} is {number} years old",
    "sum": "{addend} plus {addend2} is {total}",
    "phone": "my number is {digit} {digit2} {digit3}",
    "bring": "please bring me the {color} {thing}",
    "put": "put the {thing} on the {furniture}",
    "switch_on": "turn on the {device} in the {room}",
    "switch_off": "turn off the {device} in the {room}",
    "call": "call my {person} at {time}",
    "wake": "wake me at {time}",
    "have_color": "i have a {color} {thing}",
    "is_color": "the {thing} is {color}",
    "is_on": "the {thing} is on the {furniture}",
    "lost": "i have lost my {thing}",
    "looks_for": "my {person} is looking for the {thing}",
    "how_much": "how much does the {thing} cost",
    "greet": "{greeting} {name}",
    "how_are_you": "hello {name} how are you",
    "speaks": "{name} speaks {tongue}",
    "would_like": "i would like {food} and {food2}",
    "do_you_want": "do you want {food}",
    "buys": "my {person} buys {food}",
}
