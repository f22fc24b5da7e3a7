"""How German words the frames. A lexicon entry lists its forms, separated by `|`, in the order of FORMS."""

from data_prep.grammar.numerals import ordinals, spelled

FORMS: dict[str, tuple[str, ...]] = {
    "place": ("the", "to", "at", "dative"),
    "thing": ("the", "accusative", "article", "noun", "a", "my", "gender"),
    "color": ("plain", "weak_m", "weak_f", "weak_n", "m", "f", "n"),
    "furniture": ("onto", "on"),
    "person": ("my", "accusative"),
}

LEXICON: dict[str, dict[str, str]] = {
    "place": {
        "station": "der bahnhof|zum bahnhof|am bahnhof|dem bahnhof",
        "hotel": "das hotel|zum hotel|im hotel|dem hotel",
        "museum": "das museum|zum museum|im museum|dem museum",
        "hospital": "das krankenhaus|zum krankenhaus|im krankenhaus|dem krankenhaus",
        "market": "der markt|zum markt|auf dem markt|dem markt",
        "library": "die bibliothek|zur bibliothek|in der bibliothek|der bibliothek",
        "school": "die schule|zur schule|in der schule|der schule",
        "airport": "der flughafen|zum flughafen|am flughafen|dem flughafen",
        "church": "die kirche|zur kirche|in der kirche|der kirche",
        "bank": "die bank|zur bank|in der bank|der bank",
        "pharmacy": "die apotheke|zur apotheke|in der apotheke|der apotheke",
        "restaurant": "das restaurant|zum restaurant|im restaurant|dem restaurant",
        "park": "der park|zum park|im park|dem park",
        "theatre": "das theater|zum theater|im theater|dem theater",
        "bridge": "die brücke|zur brücke|an der brücke|der brücke",
        "castle": "das schloss|zum schloss|im schloss|dem schloss",
    },
    "city": {
        "rome": "rom", "vienna": "wien", "lisbon": "lissabon", "geneva": "genf", "milan": "mailand",
        "munich": "münchen", "venice": "venedig",
    },
    "weekday": {
        "monday": "montag", "tuesday": "dienstag", "wednesday": "mittwoch", "thursday": "donnerstag",
        "friday": "freitag", "saturday": "samstag", "sunday": "sonntag",
    },
    "month": {
        "january": "januar", "february": "februar", "march": "märz", "april": "april", "may": "mai", "june": "juni",
        "july": "juli", "august": "august", "september": "september", "october": "oktober", "november": "november",
        "december": "dezember",
    },
    "day": ordinals("de"),
    "number": spelled("de"),
    "digit": spelled("de"),
    "addend": spelled("de"),
    "thing": {
        "key": "der schlüssel|den schlüssel|den|schlüssel|einen|meinen schlüssel|m",
        "book": "das buch|das buch|das|buch|ein|mein buch|n",
        "letter": "der brief|den brief|den|brief|einen|meinen brief|m",
        "ticket": "die fahrkarte|die fahrkarte|die|fahrkarte|eine|meine fahrkarte|f",
        "bag": "die tasche|die tasche|die|tasche|eine|meine tasche|f",
        "lamp": "die lampe|die lampe|die|lampe|eine|meine lampe|f",
        "map": "die karte|die karte|die|karte|eine|meine karte|f",
        "box": "die kiste|die kiste|die|kiste|eine|meine kiste|f",
        "bottle": "die flasche|die flasche|die|flasche|eine|meine flasche|f",
        "coat": "der mantel|den mantel|den|mantel|einen|meinen mantel|m",
        "knife": "das messer|das messer|das|messer|ein|mein messer|n",
        "umbrella": "der regenschirm|den regenschirm|den|regenschirm|einen|meinen regenschirm|m",
    },
    "color": {
        "red": "rot", "blue": "blau", "green": "grün", "white": "weiß", "black": "schwarz", "yellow": "gelb",
    },
    "furniture": {
        "table": "auf den tisch|auf dem tisch", "chair": "auf den stuhl|auf dem stuhl",
        "bed": "auf das bett|auf dem bett", "shelf": "auf das regal|auf dem regal",
        "bench": "auf die bank|auf der bank",
    },
    "room": {
        "kitchen": "in der küche", "garden": "im garten", "bedroom": "im schlafzimmer", "bathroom": "im badezimmer",
        "office": "im büro",
    },
    "device": {"light": "das licht", "radio": "das radio", "television": "den fernseher", "heating": "die heizung"},
    "person": {
        "brother": "mein bruder|meinen bruder", "sister": "meine schwester|meine schwester",
        "mother": "meine mutter|meine mutter", "father": "mein vater|meinen vater", "son": "mein sohn|meinen sohn",
        "daughter": "meine tochter|meine tochter", "uncle": "mein onkel|meinen onkel",
        "aunt": "meine tante|meine tante",
    },
    "event": {
        "meeting": "das treffen", "concert": "das konzert", "exam": "die prüfung", "party": "das fest",
        "lesson": "der unterricht", "match": "das spiel",
    },
    "vehicle": {"train": "der zug", "bus": "der bus", "boat": "das schiff"},
    "food": {
        "coffee": "einen kaffee", "tea": "einen tee", "beer": "ein bier", "apple": "einen apfel",
        "orange": "eine orange", "soup": "eine suppe", "salad": "einen salat", "cake": "einen kuchen",
        "pizza": "eine pizza", "sandwich": "ein sandwich", "egg": "ein ei", "ice cream": "ein eis",
    },
    "plural": {
        "tickets": "fahrkarten", "eggs": "eier", "apples": "äpfel", "bottles": "flaschen", "chairs": "stühle",
        "books": "bücher", "keys": "schlüssel", "letters": "briefe",
    },
    "when": {
        "today": "heute", "tomorrow": "morgen", "tonight": "heute abend", "next week": "nächste woche",
        "monday": "am montag", "tuesday": "am dienstag", "wednesday": "am mittwoch", "thursday": "am donnerstag",
        "friday": "am freitag", "saturday": "am samstag", "sunday": "am sonntag",
    },
    "weather": {
        "cold": "es ist kalt", "hot": "es ist heiß", "rain": "es regnet", "snow": "es schneit",
        "wind": "es ist windig",
    },
    "tongue": {
        "english": "englisch", "french": "französisch", "german": "deutsch", "spanish": "spanisch",
        "italian": "italienisch",
    },
    "side": {"left": "links", "right": "rechts"},
    "greeting": {
        "good morning": "guten morgen", "good evening": "guten abend", "good night": "gute nacht",
        "goodbye": "auf wiedersehen", "thank you": "danke", "welcome": "willkommen", "sorry": "entschuldigung",
        "well done": "gut gemacht",
    },
    "unit": {"minutes": "minuten", "hours": "stunden", "days": "tagen", "weeks": "wochen"},
}  # fmt: skip

# After "the" (den roten, die rote, das rote) and after "a" (einen roten, eine rote, ein rotes): all regular.
for _color, _stem in LEXICON["color"].items():
    LEXICON["color"][_color] = "|".join(_stem + ending for ending in ("", "en", "e", "e", "en", "e", "es"))


def time_forms(hour: int, minute: int) -> str:
    """Return the forms of a time: 3:30 -> "halb vier", half of the fourth hour."""
    following = spelled("de")[str(hour % 12 + 1)]
    here = spelled("de")[str(hour)]
    return {0: f"{'ein' if hour == 1 else here} uhr", 15: f"viertel nach {here}", 30: f"halb {following}"}[minute]


TEMPLATES: dict[str, str] = {
    "where_is": "wo ist {place}",
    "get_to": "wie komme ich {place.to}",
    "next_to": "{place} ist neben {place2.dative}",
    "on_side": "{place} ist {side}",
    "turn": "biegen sie nach {place.dative} {side} ab",
    "going_to": "wir gehen {when} {place.to}",
    "far": "{place} ist {number} kilometer von hier",
    "at_place": "{person} ist {place.at}",
    "works": "{name} arbeitet {place.at}",
    "open_at": "{place} öffnet um {time}",
    "closed": "{place} ist am {weekday} geschlossen",
    "it_is": "es ist {time}",
    "today_is": "heute ist der {day} {month}",
    "event_at": "{event} ist am {weekday} um {time}",
    "event_date": "{event} ist am {day}n {month}",
    "event_begins": "{event} beginnt um {time}",
    "waiting": "wir warten seit {number} {unit}",
    "leaves": "{vehicle} nach {city} fährt um {time}",
    "arrives_from": "{vehicle} aus {city} kommt {when} an",
    "live_in": "ich wohne in {city}",
    "lives_in": "{person} wohnt in {city}",
    "arrives": "{person} kommt {when} an",
    "weather_in": "{weather} in {city}",
    "costs": "{thing} kostet {number} euro",
    "need": "ich brauche {number} {plural}",
    "have": "wir haben {number} {plural}",
    "room_number": "ich bin in zimmer {number}",
    "age": "{name} ist {number} jahre alt",
    "sum": "{addend} plus {addend2} ist {total}",
    "phone": "meine nummer ist {digit} {digit2} {digit3}",
    "bring": "bringen sie mir bitte {thing.article} {color.weak:thing} {thing.noun}",
    "put": "legen sie {thing.accusative} {furniture.onto}",
    "switch_on": "schalten sie {device} {room} ein",
    "switch_off": "schalten sie {device} {room} aus",
    "call": "rufen sie {person.accusative} um {time} an",
    "wake": "wecken sie mich um {time}",
    "have_color": "ich habe {thing.a} {color:thing} {thing.noun}",
    "is_color": "{thing} ist {color}",
    "is_on": "{thing} ist {furniture.on}",
    "lost": "ich habe {thing.my} verloren",
    "looks_for": "{person} sucht {thing.accusative}",
    "how_much": "wie viel kostet {thing}",
    "greet": "{greeting} {name}",
    "how_are_you": "hallo {name} wie geht es ihnen",
    "speaks": "{name} spricht {tongue}",
    "would_like": "ich möchte {food} und {food2}",
    "do_you_want": "möchten sie {food}",
    "buys": "{person} kauft {food}",
}
