"""Ask `pocket` the phrases that docs/phrasing.md speaks of, on the photographs it names.

    python benchmarks/phrasing.py

After new weights, run it and compare the page: it prints the score of each mask, or why there is
none.
"""

from __future__ import annotations

from typing import Any

from skimage import data

import promptseg

CAT, ASTRONAUT, ROCKET, COFFEE = "chelsea", "astronaut", "rocket", "coffee"
# Sections of the page: the photograph, its phrases, and the options of the query.
ASKED: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "Words it was taught": [
        (CAT, "cat; kitten; kitty; animal", {}),
        (ASTRONAUT, "person; woman; man; child", {}),
    ],
    "Other words": [
        (CAT, "Egyptian cat; tabby; lynx", {}),
        (ROCKET, "missile; rocket", {}),
        (COFFEE, "espresso", {}),
        (ASTRONAUT, "astronaut", {}),
    ],
    "How words are read": [
        (CAT, "CAT; a cat; the cat; two cats; cat on the left; gato; Katze; кот; 猫", {}),
        (COFFEE, "cup; mug; coffee cup", {}),
        (ASTRONAUT, "smiling woman; woman in a suit", {}),
    ],
    "Colours": [
        (ASTRONAUT, "orange clothes; green clothes; brown hair", {}),
        (CAT, "brown cat; orange cat; ginger cat; grey cat", {}),
    ],
    "Parts and surroundings": [
        (CAT, "ear; nose; eye; face; head; paw; background; object; thing", {}),
        (ASTRONAUT, "ear; nose; eye; face; head; hand; hair; background; object; thing", {}),
    ],
    "What it must not be": [
        (CAT, "animal", {"negative_text": "cat"}),
        (ASTRONAUT, "person", {"negative_text": "hair"}),
    ],
    "Nothing found": [(CAT, "ear; gato; dog", {"min_presence": 0})],
}


def main() -> None:
    """Ask and print."""
    pipe = promptseg.load("pocket")
    names = {name for asked in ASKED.values() for name, _, _ in asked}
    pictures = {name: pipe.encode_image(getattr(data, name)()) for name in sorted(names)}
    for section, asked in ASKED.items():
        print(section)
        for name, phrases, options in asked:
            for phrase in phrases.split("; "):
                result = pipe(pictures[name], phrase, **options)
                found = ", ".join(f"{score:.2f}" for score in result.scores)
                told = f" {options}" if options else ""
                reason = result.rejected[0].reason if result.rejected else ""
                print(f"  {name}: {phrase}{told}: {found or f'nothing ({reason})'}")


if __name__ == "__main__":
    main()
