"""What can be said: each frame is a kind of utterance with slots; the languages say how.

The frame `open_at` has the slots `place` and `time`; English words it "{place} opens at {time}", French
"{place} ouvre {time.at}". A slot that ends in a digit (`place2`) takes another value of the same kind.
"""

PLACES = (
    "station", "hotel", "museum", "hospital", "market", "library", "school", "airport", "church", "bank", "pharmacy",
    "restaurant", "park", "theatre", "bridge", "castle",
)  # fmt: skip
CITIES = ("paris", "london", "rome", "berlin", "madrid", "vienna", "lisbon", "geneva", "milan", "munich", "venice")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
DAYS_OF_MONTH = tuple(str(n) for n in range(2, 31))
# No number ends in one: "one" agrees with the noun in most languages, which would be a grammar of its own.
NUMBERS = tuple(
    str(n)
    for n in (*range(2, 21), 22, 25, 28, 30, 33, 36, 40, 44, 47, 50, 52, 55, 60, 64, 66, 70, 75, 78, 80, 88, 90, 99)
)
DIGITS = tuple(str(n) for n in range(10))
SMALL_NUMBERS = tuple(str(n) for n in range(2, 11))
TIMES = tuple(f"{hour}:{minute:02d}" for hour in range(1, 13) for minute in (0, 15, 30))
NAMES = ("anna", "paul", "maria", "thomas", "julia", "martin", "laura", "daniel", "eva", "robert")

SLOTS: dict[str, tuple[str, ...]] = {
    "place": PLACES,
    "city": CITIES,
    "weekday": WEEKDAYS,
    "month": MONTHS,
    "day": DAYS_OF_MONTH,
    "number": NUMBERS,
    "digit": DIGITS,
    "addend": SMALL_NUMBERS,
    "time": TIMES,
    "name": NAMES,
    "thing": ("key", "book", "letter", "ticket", "bag", "lamp", "map", "box", "bottle", "coat", "knife", "umbrella"),
    "color": ("red", "blue", "green", "white", "black", "yellow"),
    "furniture": ("table", "chair", "bed", "shelf", "bench"),
    "room": ("kitchen", "garden", "bedroom", "bathroom", "office"),
    "device": ("light", "radio", "television", "heating"),
    "person": ("brother", "sister", "mother", "father", "son", "daughter", "uncle", "aunt"),
    "event": ("meeting", "concert", "exam", "party", "lesson", "match"),
    "vehicle": ("train", "bus", "boat"),
    "food": (
        "coffee", "tea", "beer", "apple", "orange", "soup", "salad", "cake", "pizza", "sandwich", "egg", "ice cream",
    ),
    "plural": ("tickets", "eggs", "apples", "bottles", "chairs", "books", "keys", "letters"),
    "when": ("today", "tomorrow", "tonight", "next week", *WEEKDAYS),
    "weather": ("cold", "hot", "rain", "snow", "wind"),
    "tongue": ("english", "french", "german", "spanish", "italian"),
    "side": ("left", "right"),
    "greeting": ("good morning", "good evening", "good night", "goodbye", "thank you", "welcome", "sorry", "well done"),
    "unit": ("minutes", "hours", "days", "weeks"),
}  # fmt: skip

FRAMES: dict[str, tuple[str, ...]] = {
    # places and ways
    "where_is": ("place",),
    "get_to": ("place",),
    "next_to": ("place", "place2"),
    "on_side": ("place", "side"),
    "turn": ("side", "place"),
    "going_to": ("place", "when"),
    "far": ("place", "number"),
    "at_place": ("person", "place"),
    "works": ("name", "place"),
    # times and dates
    "open_at": ("place", "time"),
    "closed": ("place", "weekday"),
    "it_is": ("time",),
    "today_is": ("day", "month"),
    "event_at": ("event", "weekday", "time"),
    "event_date": ("event", "day", "month"),
    "event_begins": ("event", "time"),
    "waiting": ("number", "unit"),
    # journeys
    "leaves": ("vehicle", "city", "time"),
    "arrives_from": ("vehicle", "city", "when"),
    "live_in": ("city",),
    "lives_in": ("person", "city"),
    "arrives": ("person", "when"),
    "weather_in": ("weather", "city"),
    # numbers
    "costs": ("thing", "number"),
    "need": ("number", "plural"),
    "have": ("number", "plural"),
    "room_number": ("number",),
    "age": ("name", "number"),
    "sum": ("addend", "addend2"),
    "phone": ("digit", "digit2", "digit3"),
    # commands
    "bring": ("thing", "color"),
    "put": ("thing", "furniture"),
    "switch_on": ("device", "room"),
    "switch_off": ("device", "room"),
    "call": ("person", "time"),
    "wake": ("time",),
    # things
    "have_color": ("thing", "color"),
    "is_color": ("thing", "color"),
    "is_on": ("thing", "furniture"),
    "lost": ("thing",),
    "looks_for": ("person", "thing"),
    "how_much": ("thing",),
    # small talk and food
    "greet": ("greeting", "name"),
    "how_are_you": ("name",),
    "speaks": ("name", "tongue"),
    "would_like": ("food", "food2"),
    "do_you_want": ("food",),
    "buys": ("person", "food"),
}
