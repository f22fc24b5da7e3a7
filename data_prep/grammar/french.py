"""How French words the frames. A lexicon entry lists its forms, separated by `|`, in the order of FORMS."""

from data_prep.grammar.numerals import spelled

FORMS: dict[str, tuple[str, ...]] = {
    "place": ("the", "to", "of", "gender"),
    "thing": ("the", "a", "my", "gender"),
    "color": ("m", "f"),
}

LEXICON: dict[str, dict[str, str]] = {
    "place": {
        "station": "la gare|à la gare|de la gare|f",
        "hotel": "l'hôtel|à l'hôtel|de l'hôtel|m",
        "museum": "le musée|au musée|du musée|m",
        "hospital": "l'hôpital|à l'hôpital|de l'hôpital|m",
        "market": "le marché|au marché|du marché|m",
        "library": "la bibliothèque|à la bibliothèque|de la bibliothèque|f",
        "school": "l'école|à l'école|de l'école|f",
        "airport": "l'aéroport|à l'aéroport|de l'aéroport|m",
        "church": "l'église|à l'église|de l'église|f",
        "bank": "la banque|à la banque|de la banque|f",
        "pharmacy": "la pharmacie|à la pharmacie|de la pharmacie|f",
        "restaurant": "le restaurant|au restaurant|du restaurant|m",
        "park": "le parc|au parc|du parc|m",
        "theatre": "le théâtre|au théâtre|du théâtre|m",
        "bridge": "le pont|au pont|du pont|m",
        "castle": "le château|au château|du château|m",
    },
    "closed": {"m": "fermé", "f": "fermée"},
    "city": {
        "london": "londres", "rome": "rome", "vienna": "vienne", "lisbon": "lisbonne", "geneva": "genève",
        "venice": "venise",
    },
    "weekday": {
        "monday": "lundi", "tuesday": "mardi", "wednesday": "mercredi", "thursday": "jeudi", "friday": "vendredi",
        "saturday": "samedi", "sunday": "dimanche",
    },
    "month": {
        "january": "janvier", "february": "février", "march": "mars", "april": "avril", "may": "mai", "june": "juin",
        "july": "juillet", "august": "août", "september": "septembre", "october": "octobre", "november": "novembre",
        "december": "décembre",
    },
    "day": spelled("fr"),
    "number": spelled("fr"),
    "digit": spelled("fr"),
    "addend": spelled("fr"),
    "thing": {
        "key": "la clé|une clé|ma clé|f",
        "book": "le livre|un livre|mon livre|m",
        "letter": "la lettre|une lettre|ma lettre|f",
        "ticket": "le billet|un billet|mon billet|m",
        "bag": "le sac|un sac|mon sac|m",
        "lamp": "la lampe|une lampe|ma lampe|f",
        "map": "la carte|une carte|ma carte|f",
        "box": "la boîte|une boîte|ma boîte|f",
        "bottle": "la bouteille|une bouteille|ma bouteille|f",
        "coat": "le manteau|un manteau|mon manteau|m",
        "knife": "le couteau|un couteau|mon couteau|m",
        "umbrella": "le parapluie|un parapluie|mon parapluie|m",
    },
    "color": {
        "red": "rouge|rouge", "blue": "bleu|bleue", "green": "vert|verte", "white": "blanc|blanche",
        "black": "noir|noire", "yellow": "jaune|jaune",
    },
    "furniture": {
        "table": "la table", "chair": "la chaise", "bed": "le lit", "shelf": "l'étagère", "bench": "le banc",
    },
    "room": {
        "kitchen": "la cuisine", "garden": "le jardin", "bedroom": "la chambre", "bathroom": "la salle de bain",
        "office": "le bureau",
    },
    "device": {
        "light": "la lumière", "radio": "la radio", "television": "la télévision", "heating": "le chauffage",
    },
    "person": {
        "brother": "mon frère", "sister": "ma sœur", "mother": "ma mère", "father": "mon père", "son": "mon fils",
        "daughter": "ma fille", "uncle": "mon oncle", "aunt": "ma tante",
    },
    "event": {
        "meeting": "la réunion", "concert": "le concert", "exam": "l'examen", "party": "la fête",
        "lesson": "la leçon", "match": "le match",
    },
    "vehicle": {"train": "le train", "bus": "le bus", "boat": "le bateau"},
    "food": {
        "coffee": "un café", "tea": "un thé", "beer": "une bière", "apple": "une pomme", "orange": "une orange",
        "soup": "une soupe", "salad": "une salade", "cake": "un gâteau", "pizza": "une pizza",
        "sandwich": "un sandwich", "egg": "un œuf", "ice cream": "une glace",
    },
    "plural": {
        "tickets": "billets", "eggs": "œufs", "apples": "pommes", "bottles": "bouteilles", "chairs": "chaises",
        "books": "livres", "keys": "clés", "letters": "lettres",
    },
    "when": {
        "today": "aujourd'hui", "tomorrow": "demain", "tonight": "ce soir", "next week": "la semaine prochaine",
        "monday": "lundi", "tuesday": "mardi", "wednesday": "mercredi", "thursday": "jeudi", "friday": "vendredi",
        "saturday": "samedi", "sunday": "dimanche",
    },
    "weather": {
        "cold": "il fait froid", "hot": "il fait chaud", "rain": "il pleut", "snow": "il neige",
        "wind": "il y a du vent",
    },
    "tongue": {
        "english": "anglais", "french": "français", "german": "allemand", "spanish": "espagnol",
        "italian": "italien",
    },
    "side": {"left": "à gauche", "right": "à droite"},
    "greeting": {
        "good morning": "bonjour", "good evening": "bonsoir", "good night": "bonne nuit", "goodbye": "au revoir",
        "thank you": "merci", "welcome": "bienvenue", "sorry": "pardon", "well done": "bravo",
    },
    "unit": {"minutes": "minutes", "hours": "heures", "days": "jours", "weeks": "semaines"},
}  # fmt: skip


def time_forms(hour: int, minute: int) -> str:
    """Return the forms of a time: 3:30 -> "trois heures et demie"."""
    word = "une heure" if hour == 1 else f"{spelled('fr')[str(hour)]} heures"
    return word + {0: "", 15: " et quart", 30: " et demie"}[minute]


TEMPLATES: dict[str, str] = {
    "where_is": "où est {place}",
    "get_to": "comment aller {place.to}",
    "next_to": "{place} est à côté {place2.of}",
    "on_side": "{place} est {side}",
    "turn": "tournez {side} après {place}",
    "going_to": "nous allons {place.to} {when}",
    "far": "{place} est à {number} kilomètres d'ici",
    "at_place": "{person} est {place.to}",
    "works": "{name} travaille {place.to}",
    "open_at": "{place} ouvre à {time}",
    "closed": "{place} est {closed:place} {weekday}",
    "it_is": "il est {time}",
    "today_is": "aujourd'hui c'est le {day} {month}",
    "event_at": "{event} est {weekday} à {time}",
    "event_date": "{event} est le {day} {month}",
    "event_begins": "{event} commence à {time}",
    "waiting": "nous attendons depuis {number} {unit}",
    "leaves": "{vehicle} pour {city} part à {time}",
    "arrives_from": "{vehicle} de {city} arrive {when}",
    "live_in": "j'habite à {city}",
    "lives_in": "{person} habite à {city}",
    "arrives": "{person} arrive {when}",
    "weather_in": "{weather} à {city}",
    "costs": "{thing} coûte {number} euros",
    "need": "j'ai besoin de {number} {plural}",
    "have": "nous avons {number} {plural}",
    "room_number": "je suis dans la chambre {number}",
    "age": "{name} a {number} ans",
    "sum": "{addend} plus {addend2} font {total}",
    "phone": "mon numéro est {digit} {digit2} {digit3}",
    "bring": "apportez moi {thing} {color:thing} s'il vous plaît",
    "put": "mettez {thing} sur {furniture}",
    "switch_on": "allumez {device} dans {room}",
    "switch_off": "éteignez {device} dans {room}",
    "call": "appelez {person} à {time}",
    "wake": "réveillez moi à {time}",
    "have_color": "j'ai {thing.a} {color:thing}",
    "is_color": "{thing} est {color:thing}",
    "is_on": "{thing} est sur {furniture}",
    "lost": "j'ai perdu {thing.my}",
    "looks_for": "{person} cherche {thing}",
    "how_much": "combien coûte {thing}",
    "greet": "{greeting} {name}",
    "how_are_you": "salut {name} comment allez vous",
    "speaks": "{name} parle {tongue}",
    "would_like": "je voudrais {food} et {food2}",
    "do_you_want": "voulez vous {food}",
    "buys": "{person} achète {food}",
}
