"""How Spanish words the frames. A lexicon entry lists its forms, separated by `|`, in the order of FORMS."""

from data_prep.grammar.numerals import spelled

FORMS: dict[str, tuple[str, ...]] = {
    "place": ("the", "to", "of", "gender"),
    "thing": ("the", "noun", "gender"),
    "color": ("m", "f"),
    "time": ("at", "is"),
}

LEXICON: dict[str, dict[str, str]] = {
    "place": {
        "station": "la estación|a la estación|de la estación|f",
        "hotel": "el hotel|al hotel|del hotel|m",
        "museum": "el museo|al museo|del museo|m",
        "hospital": "el hospital|al hospital|del hospital|m",
        "market": "el mercado|al mercado|del mercado|m",
        "library": "la biblioteca|a la biblioteca|de la biblioteca|f",
        "school": "la escuela|a la escuela|de la escuela|f",
        "airport": "el aeropuerto|al aeropuerto|del aeropuerto|m",
        "church": "la iglesia|a la iglesia|de la iglesia|f",
        "bank": "el banco|al banco|del banco|m",
        "pharmacy": "la farmacia|a la farmacia|de la farmacia|f",
        "restaurant": "el restaurante|al restaurante|del restaurante|m",
        "park": "el parque|al parque|del parque|m",
        "theatre": "el teatro|al teatro|del teatro|m",
        "bridge": "el puente|al puente|del puente|m",
        "castle": "el castillo|al castillo|del castillo|m",
    },
    "closed": {"m": "cerrado", "f": "cerrada"},
    "city": {
        "paris": "parís", "london": "londres", "rome": "roma", "berlin": "berlín", "vienna": "viena",
        "lisbon": "lisboa", "geneva": "ginebra", "milan": "milán", "munich": "múnich", "venice": "venecia",
    },
    "weekday": {
        "monday": "lunes", "tuesday": "martes", "wednesday": "miércoles", "thursday": "jueves", "friday": "viernes",
        "saturday": "sábado", "sunday": "domingo",
    },
    "month": {
        "january": "enero", "february": "febrero", "march": "marzo", "april": "abril", "may": "mayo", "june": "junio",
        "july": "julio", "august": "agosto", "september": "septiembre", "october": "octubre",
        "november": "noviembre", "december": "diciembre",
    },
    "day": spelled("es"),
    "number": spelled("es"),
    "digit": spelled("es"),
    "addend": spelled("es"),
    "thing": {
        "key": "la llave|llave|f", "book": "el libro|libro|m", "letter": "la carta|carta|f",
        "ticket": "el billete|billete|m", "bag": "la bolsa|bolsa|f", "lamp": "la lámpara|lámpara|f",
        "map": "el mapa|mapa|m", "box": "la caja|caja|f", "bottle": "la botella|botella|f",
        "coat": "el abrigo|abrigo|m", "knife": "el cuchillo|cuchillo|m", "umbrella": "el paraguas|paraguas|m",
    },
    "a": {"m": "un", "f": "una"},
    "color": {
        "red": "rojo|roja", "blue": "azul|azul", "green": "verde|verde", "white": "blanco|blanca",
        "black": "negro|negra", "yellow": "amarillo|amarilla",
    },
    "furniture": {
        "table": "la mesa", "chair": "la silla", "bed": "la cama", "shelf": "el estante", "bench": "el banco",
    },
    "room": {
        "kitchen": "la cocina", "garden": "el jardín", "bedroom": "el dormitorio", "bathroom": "el baño",
        "office": "la oficina",
    },
    "device": {"light": "la luz", "radio": "la radio", "television": "la televisión", "heating": "la calefacción"},
    "person": {
        "brother": "mi hermano", "sister": "mi hermana", "mother": "mi madre", "father": "mi padre", "son": "mi hijo",
        "daughter": "mi hija", "uncle": "mi tío", "aunt": "mi tía",
    },
    "event": {
        "meeting": "la reunión", "concert": "el concierto", "exam": "el examen", "party": "la fiesta",
        "lesson": "la clase", "match": "el partido",
    },
    "vehicle": {"train": "el tren", "bus": "el autobús", "boat": "el barco"},
    "food": {
        "coffee": "un café", "tea": "un té", "beer": "una cerveza", "apple": "una manzana", "orange": "una naranja",
        "soup": "una sopa", "salad": "una ensalada", "cake": "un pastel", "pizza": "una pizza",
        "sandwich": "un bocadillo", "egg": "un huevo", "ice cream": "un helado",
    },
    "plural": {
        "tickets": "billetes", "eggs": "huevos", "apples": "manzanas", "bottles": "botellas", "chairs": "sillas",
        "books": "libros", "keys": "llaves", "letters": "cartas",
    },
    "when": {
        "today": "hoy", "tomorrow": "mañana", "tonight": "esta noche", "next week": "la próxima semana",
        "monday": "el lunes", "tuesday": "el martes", "wednesday": "el miércoles", "thursday": "el jueves",
        "friday": "el viernes", "saturday": "el sábado", "sunday": "el domingo",
    },
    "weather": {
        "cold": "hace frío", "hot": "hace calor", "rain": "llueve", "snow": "nieva", "wind": "hace viento",
    },
    "tongue": {
        "english": "inglés", "french": "francés", "german": "alemán", "spanish": "español", "italian": "italiano",
    },
    "side": {"left": "a la izquierda", "right": "a la derecha"},
    "greeting": {
        "good morning": "buenos días", "good evening": "buenas tardes", "good night": "buenas noches",
        "goodbye": "adiós", "thank you": "gracias", "welcome": "te damos la bienvenida", "sorry": "perdón",
        "well done": "muy bien",
    },
    "unit": {"minutes": "minutos", "hours": "horas", "days": "días", "weeks": "semanas"},
}  # fmt: skip


def time_forms(hour: int, minute: int) -> str:
    """Return the forms of a time: 3:30 -> "a las tres y media", "son las tres y media"."""
    at, is_, word = ("a la", "es la", "una") if hour == 1 else ("a las", "son las", spelled("es")[str(hour)])
    rest = word + {0: "", 15: " y cuarto", 30: " y media"}[minute]
    return f"{at} {rest}|{is_} {rest}"


TEMPLATES: dict[str, str] = {
    "where_is": "dónde está {place}",
    "get_to": "cómo llego {place.to}",
    "next_to": "{place} está al lado {place2.of}",
    "on_side": "{place} está {side}",
    "turn": "gire {side} después {place.of}",
    "going_to": "vamos {place.to} {when}",
    "far": "{place} está a {number} kilómetros de aquí",
    "at_place": "{person} está en {place}",
    "works": "{name} trabaja en {place}",
    "open_at": "{place} abre {time}",
    "closed": "{place} está {closed:place} el {weekday}",
    "it_is": "{time.is}",
    "today_is": "hoy es el {day} de {month}",
    "event_at": "{event} es el {weekday} {time}",
    "event_date": "{event} es el {day} de {month}",
    "event_begins": "{event} empieza {time}",
    "waiting": "esperamos desde hace {number} {unit}",
    "leaves": "{vehicle} para {city} sale {time}",
    "arrives_from": "{vehicle} de {city} llega {when}",
    "live_in": "vivo en {city}",
    "lives_in": "{person} vive en {city}",
    "arrives": "{person} llega {when}",
    "weather_in": "{weather} en {city}",
    "costs": "{thing} cuesta {number} euros",
    "need": "necesito {number} {plural}",
    "have": "tenemos {number} {plural}",
    "room_number": "estoy en la habitación {number}",
    "age": "{name} tiene {number} años",
    "sum": "{addend} más {addend2} son {total}",
    "phone": "mi número es {digit} {digit2} {digit3}",
    "bring": "tráigame {thing} {color:thing} por favor",
    "put": "ponga {thing} sobre {furniture}",
    "switch_on": "encienda {device} en {room}",
    "switch_off": "apague {device} en {room}",
    "call": "llame a {person} {time}",
    "wake": "despiérteme {time}",
    "have_color": "tengo {a:thing} {thing.noun} {color:thing}",
    "is_color": "{thing} es {color:thing}",
    "is_on": "{thing} está sobre {furniture}",
    "lost": "he perdido mi {thing.noun}",
    "looks_for": "{person} busca {thing}",
    "how_much": "cuánto cuesta {thing}",
    "greet": "{greeting} {name}",
    "how_are_you": "hola {name} cómo está usted",
    "speaks": "{name} habla {tongue}",
    "would_like": "quisiera {food} y {food2}",
    "do_you_want": "quiere usted {food}",
    "buys": "{person} compra {food}",
}
