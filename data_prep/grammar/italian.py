"""How Italian words the frames. A lexicon entry lists its forms, separated by `|`, in the order of FORMS."""

from data_prep.grammar.numerals import spelled

FORMS: dict[str, tuple[str, ...]] = {
    "place": ("the", "to", "at", "gender"),
    "thing": ("the", "a", "my", "gender"),
    "color": ("m", "f"),
    "time": ("at", "is"),
}

LEXICON: dict[str, dict[str, str]] = {
    "place": {
        "station": "la stazione|alla stazione|alla stazione|f",
        "hotel": "l'hotel|all'hotel|in hotel|m",
        "museum": "il museo|al museo|al museo|m",
        "hospital": "l'ospedale|all'ospedale|in ospedale|m",
        "market": "il mercato|al mercato|al mercato|m",
        "library": "la biblioteca|alla biblioteca|in biblioteca|f",
        "school": "la scuola|alla scuola|a scuola|f",
        "airport": "l'aeroporto|all'aeroporto|all'aeroporto|m",
        "church": "la chiesa|alla chiesa|in chiesa|f",
        "bank": "la banca|alla banca|in banca|f",
        "pharmacy": "la farmacia|alla farmacia|in farmacia|f",
        "restaurant": "il ristorante|al ristorante|al ristorante|m",
        "park": "il parco|al parco|al parco|m",
        "theatre": "il teatro|al teatro|a teatro|m",
        "bridge": "il ponte|al ponte|al ponte|m",
        "castle": "il castello|al castello|al castello|m",
    },
    "closed": {"m": "chiuso", "f": "chiusa"},
    "city": {
        "paris": "parigi", "london": "londra", "rome": "roma", "berlin": "berlino", "lisbon": "lisbona",
        "geneva": "ginevra", "milan": "milano", "munich": "monaco", "venice": "venezia",
    },
    "weekday": {
        "monday": "lunedì", "tuesday": "martedì", "wednesday": "mercoledì", "thursday": "giovedì",
        "friday": "venerdì", "saturday": "sabato", "sunday": "domenica",
    },
    "month": {
        "january": "gennaio", "february": "febbraio", "march": "marzo", "april": "aprile", "may": "maggio",
        "june": "giugno", "july": "luglio", "august": "agosto", "september": "settembre", "october": "ottobre",
        "november": "novembre", "december": "dicembre",
    },
    "day": {day: f"il {word}" for day, word in spelled("it").items()} | {"8": "l'otto", "11": "l'undici"},
    "number": spelled("it"),
    "digit": spelled("it"),
    "addend": spelled("it"),
    "thing": {
        "key": "la chiave|una chiave|la mia chiave|f",
        "book": "il libro|un libro|il mio libro|m",
        "letter": "la lettera|una lettera|la mia lettera|f",
        "ticket": "il biglietto|un biglietto|il mio biglietto|m",
        "bag": "la borsa|una borsa|la mia borsa|f",
        "lamp": "la lampada|una lampada|la mia lampada|f",
        "map": "la mappa|una mappa|la mia mappa|f",
        "box": "la scatola|una scatola|la mia scatola|f",
        "bottle": "la bottiglia|una bottiglia|la mia bottiglia|f",
        "coat": "il cappotto|un cappotto|il mio cappotto|m",
        "knife": "il coltello|un coltello|il mio coltello|m",
        "umbrella": "l'ombrello|un ombrello|il mio ombrello|m",
    },
    "color": {
        "red": "rosso|rossa", "blue": "blu|blu", "green": "verde|verde", "white": "bianco|bianca",
        "black": "nero|nera", "yellow": "giallo|gialla",
    },
    "furniture": {
        "table": "sul tavolo", "chair": "sulla sedia", "bed": "sul letto", "shelf": "sullo scaffale",
        "bench": "sulla panchina",
    },
    "room": {
        "kitchen": "in cucina", "garden": "in giardino", "bedroom": "in camera da letto", "bathroom": "in bagno",
        "office": "in ufficio",
    },
    "device": {
        "light": "la luce", "radio": "la radio", "television": "la televisione", "heating": "il riscaldamento",
    },
    "person": {
        "brother": "mio fratello", "sister": "mia sorella", "mother": "mia madre", "father": "mio padre",
        "son": "mio figlio", "daughter": "mia figlia", "uncle": "mio zio", "aunt": "mia zia",
    },
    "event": {
        "meeting": "la riunione", "concert": "il concerto", "exam": "l'esame", "party": "la festa",
        "lesson": "la lezione", "match": "la partita",
    },
    "vehicle": {"train": "il treno", "bus": "l'autobus", "boat": "il battello"},
    "food": {
        "coffee": "un caffè", "tea": "un tè", "beer": "una birra", "apple": "una mela", "orange": "un'arancia",
        "soup": "una zuppa", "salad": "un'insalata", "cake": "una torta", "pizza": "una pizza",
        "sandwich": "un panino", "egg": "un uovo", "ice cream": "un gelato",
    },
    "plural": {
        "tickets": "biglietti", "eggs": "uova", "apples": "mele", "bottles": "bottiglie", "chairs": "sedie",
        "books": "libri", "keys": "chiavi", "letters": "lettere",
    },
    "when": {
        "today": "oggi", "tomorrow": "domani", "tonight": "stasera", "next week": "la prossima settimana",
        "monday": "lunedì", "tuesday": "martedì", "wednesday": "mercoledì", "thursday": "giovedì",
        "friday": "venerdì", "saturday": "sabato", "sunday": "domenica",
    },
    "weather": {
        "cold": "fa freddo", "hot": "fa caldo", "rain": "piove", "snow": "nevica", "wind": "c'è vento",
    },
    "tongue": {
        "english": "inglese", "french": "francese", "german": "tedesco", "spanish": "spagnolo",
        "italian": "italiano",
    },
    "side": {"left": "a sinistra", "right": "a destra"},
    "greeting": {
        "good morning": "buongiorno", "good evening": "buonasera", "good night": "buonanotte",
        "goodbye": "arrivederci", "thank you": "grazie", "welcome": "ti diamo il benvenuto", "sorry": "mi scusi",
        "well done": "molto bene",
    },
    "unit": {"minutes": "minuti", "hours": "ore", "days": "giorni", "weeks": "settimane"},
}  # fmt: skip


def time_forms(hour: int, minute: int) -> str:
    """Return the forms of a time: 3:30 -> "alle tre e mezza", "sono le tre e mezza"."""
    rest = {0: "", 15: " e un quarto", 30: " e mezza"}[minute]
    if hour == 1:
        return f"all'una{rest}|è l'una{rest}"
    word = spelled("it")[str(hour)]
    return f"alle {word}{rest}|sono le {word}{rest}"


TEMPLATES: dict[str, str] = {
    "where_is": "dov'è {place}",
    "get_to": "come arrivo {place.to}",
    "next_to": "{place} è accanto {place2.to}",
    "on_side": "{place} è {side}",
    "turn": "giri {side} dopo {place}",
    "going_to": "andiamo {place.to} {when}",
    "far": "{place} è a {number} chilometri da qui",
    "at_place": "{person} è {place.at}",
    "works": "{name} lavora {place.at}",
    "open_at": "{place} apre {time}",
    "closed": "{place} è {closed:place} {weekday}",
    "it_is": "{time.is}",
    "today_is": "oggi è {day} {month}",
    "event_at": "{event} è {weekday} {time}",
    "event_date": "{event} è {day} {month}",
    "event_begins": "{event} comincia {time}",
    "waiting": "aspettiamo da {number} {unit}",
    "leaves": "{vehicle} per {city} parte {time}",
    "arrives_from": "{vehicle} da {city} arriva {when}",
    "live_in": "vivo a {city}",
    "lives_in": "{person} vive a {city}",
    "arrives": "{person} arriva {when}",
    "weather_in": "{weather} a {city}",
    "costs": "{thing} costa {number} euro",
    "need": "ho bisogno di {number} {plural}",
    "have": "abbiamo {number} {plural}",
    "room_number": "sono nella stanza {number}",
    "age": "{name} ha {number} anni",
    "sum": "{addend} più {addend2} fa {total}",
    "phone": "il mio numero è {digit} {digit2} {digit3}",
    "bring": "mi porti {thing} {color:thing} per favore",
    "put": "metta {thing} {furniture}",
    "switch_on": "accenda {device} {room}",
    "switch_off": "spenga {device} {room}",
    "call": "chiami {person} {time}",
    "wake": "mi svegli {time}",
    "have_color": "ho {thing.a} {color:thing}",
    "is_color": "{thing} è {color:thing}",
    "is_on": "{thing} è {furniture}",
    "lost": "ho perso {thing.my}",
    "looks_for": "{person} cerca {thing}",
    "how_much": "quanto costa {thing}",
    "greet": "{greeting} {name}",
    "how_are_you": "salve {name} come sta",
    "speaks": "{name} parla {tongue}",
    "would_like": "vorrei {food} e {food2}",
    "do_you_want": "vuole {food}",
    "buys": "{person} compra {food}",
}
