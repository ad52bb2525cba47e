// The names of masks and objects below the photograph, and the scores beside the pointer.
export class Legend {
    constructor(stage, pointAt) {
        this.stage = stage;
        this.pointAt = pointAt;
        this.legend = stage.root.querySelector(".stage-legend");
        this.tip = stage.root.querySelector(".stage-tip");
        this.frame = stage.root.querySelector(".stage-frame");
        this.chips = new Map();  // by item
    }

    draw() {
        const { masks, objects, chosen } = this.stage;
        const focused = document.activeElement?.closest(".stage-legend button")?.dataset.number;
        this.chips.clear();
        const found = masks.map((mask, i) => {
            return this.chip(mask, `${i + 1} ${mask.label} ${mask.score.toFixed(2)}`);
        });
        const collected = objects.map((object) => {
            const chip = this.chip(object, object.label);
            chip.classList.add("object");
            chip.dataset.number = object.number;
            chip.classList.toggle("is-hidden", object.hidden);
            chip.setAttribute("aria-pressed", String(chosen.has(object.number)));
            chip.addEventListener("click", (event) => this.stage.trigger("picked", {
                number: object.number, more: event.ctrlKey || event.metaKey || event.shiftKey,
            }));
            return chip;
        });
        this.legend.replaceChildren(...group("Found", found), ...group("Objects", collected));
        this.tip.hidden = true;
        // The chips are new: whoever was at one by keyboard stays there.
        if (focused) this.legend.querySelector(`[data-number="${focused}"]`)?.focus();
    }

    chip(item, words) {
        const chip = document.createElement("button");
        const swatch = document.createElement("i");
        chip.type = "button";
        swatch.style.background = item.color;
        chip.append(swatch, words);
        for (const event of ["pointerenter", "focus"]) {
            chip.addEventListener(event, () => this.pointAt(item));
        }
        for (const event of ["pointerleave", "blur"]) {
            chip.addEventListener(event, () => this.pointAt(null));
        }
        this.chips.set(item, chip);
        return chip;
    }

    // Mark the chip of the item under the pointer.
    mark() {
        for (const [item, chip] of this.chips) {
            chip.classList.toggle("pointed", item === this.stage.pointedAt);
        }
    }

    showTip(item, event) {
        this.tip.hidden = !item || !event;
        if (this.tip.hidden) return;
        const title = document.createElement("strong");
        title.textContent = item.number ? item.label : `${this.stage.masks.indexOf(item) + 1} ${item.label}`;
        this.tip.replaceChildren(title, ...rows(item).map((words) => {
            const row = document.createElement("span");
            row.textContent = words;
            return row;
        }));
        const rect = this.frame.getBoundingClientRect();
        const x = event.clientX - rect.left, y = event.clientY - rect.top;
        const left = Math.max(4, Math.min(x + 14, rect.width - this.tip.offsetWidth - 4));
        const top = y > rect.height / 2 ? y - this.tip.offsetHeight - 14 : y + 18;
        this.tip.style.left = `${left}px`;
        this.tip.style.top = `${top}px`;
    }
}

function group(name, chips) {
    if (!chips.length) return [];
    const heading = document.createElement("span");
    heading.textContent = name;
    return [heading, ...chips];
}

function rows(item) {
    if (item.number) return [item.about];
    const scores = [
        ["score", item.score], ["IoU prediction", item.iou],
        ["stability", item.stability], ["prompt", item.prompt],
    ];
    return scores.map(([name, number]) => `${name} ${number.toFixed(2)}`);
}
