// Turns the pointer into events: clicks, boxes and paint in the mode "mark", strokes in the mode
// "edit"; elsewhere it chooses objects, and moves the photograph where it is zoomed.
const FAR = 5;  // pixels of the screen that make a click a drag
const MOST_POINTS = 1000;

export function listenToPointer(stage, view, layers, pointAt) {
    const { root, photo, trigger } = stage;
    const frame = view.window;
    const fingers = new Map();  // where each finger is
    let drag = null;  // while the pointer is down: what it does, where it started and is
    let space = false;
    let unanswered = 0;  // strokes that the server has yet to answer

    function place(event) {
        const rect = photo.getBoundingClientRect();
        const within = (value) => Math.min(0.999999, Math.max(0, value));
        return {
            u: within((event.clientX - rect.left) / rect.width),
            v: within((event.clientY - rect.top) / rect.height),
        };
    }

    const toPixels = ({ u, v }) => [
        Math.floor(u * stage.size().width), Math.floor(v * stage.size().height),
    ];
    const toPoint = ({ u, v }) => [
        Math.round(100 * u * stage.size().width) / 100,
        Math.round(100 * v * stage.size().height) / 100,
    ];
    const painting = () => ["paint", "erase"].includes(stage.tool());

    // The smallest item under the pointer: a part rather than its whole.
    function under({ u, v }) {
        const items = stage.mode() === "edit" ? stage.objects : [...stage.masks, ...stage.objects];
        let best = null;
        for (const item of items) {
            const [x0, y0, x1, y1] = item.box;
            if (!item.solid((u - x0) / (x1 - x0), (v - y0) / (y1 - y0))) continue;
            if (!best || item.area < best.area) best = item;
        }
        return best;
    }

    function kindOfDrag(event) {
        if (event.button === 1 || space) return "pan";
        if (stage.mode() === "view") return "pan";
        if (stage.mode() === "edit") return painting() ? "stroke" : "pan";
        return painting() ? "paint" : "mark";
    }

    function start(event) {
        const from = place(event);
        const kind = kindOfDrag(event);
        drag = { kind, from, last: from, right: event.button === 2, moved: false, points: [from] };
        drag.start = drag.at = { clientX: event.clientX, clientY: event.clientY };
        if (kind === "paint" || kind === "stroke") layers.stroke(from, from);
        if (kind === "pan") pointAt(under(from), event);
        // A finger that only points leaves the page its scrolling.
        if (event.pointerType === "mouse" || stage.tool() === "box" || kind !== "mark") {
            if (kind !== "pan" || event.pointerType === "mouse") event.preventDefault();
            frame.setPointerCapture(event.pointerId);
        }
    }

    function move(event) {
        const here = place(event);
        const { clientX, clientY } = event;
        const away = Math.hypot(clientX - drag.start.clientX, clientY - drag.start.clientY);
        drag.moved = drag.moved || away > FAR;
        if (drag.kind === "paint" || drag.kind === "stroke") {
            layers.stroke(drag.last, here);
            keepPoint(here);
            layers.drawMarks({ brush: here });
        } else if (drag.kind === "pan") {
            if (drag.moved) view.pan(clientX - drag.at.clientX, clientY - drag.at.clientY);
        } else if (drag.moved && !drag.right) {
            const { u, v } = drag.from;
            const box = [Math.min(u, here.u), Math.min(v, here.v), Math.max(u, here.u), Math.max(v, here.v)];
            layers.drawMarks({ box });
        }
        drag.last = here;
        drag.at = { clientX, clientY };
    }

    // Points closer together than the brush shows are left out, and every other one of too many.
    function keepPoint(here) {
        const last = drag.points[drag.points.length - 1];
        const { naturalWidth, naturalHeight } = photo;
        const far = Math.hypot((here.u - last.u) * naturalWidth, (here.v - last.v) * naturalHeight);
        if (far < Math.max(1, layers.radius() / 4)) return;
        drag.points.push(here);
        if (drag.points.length >= MOST_POINTS) drag.points = drag.points.filter((_, i) => i % 2 === 0);
    }

    function finish(event) {
        const { kind, from, right, moved, points } = drag;
        const here = place(event);
        drag = null;
        if (kind === "pan") return moved || event.button === 1 ? undefined : pick(here, event);
        pointAt(null);
        if (kind === "paint") {
            return trigger("painted", { png: layers.paint.toDataURL("image/png") });
        }
        if (kind === "stroke") return finishStroke([...points, here]);
        if (moved && !right) return trigger("marked", { box: [...toPixels(from), ...toPixels(here)] });
        if (stage.tool() === "box") return layers.drawMarks();
        const label = right || stage.tool() === "background" ? 0 : 1;
        const [x, y] = toPixels(here);
        stage.addPoint([x, y, label]);
        return trigger("marked", { point: [x, y], label });
    }

    function finishStroke(places) {
        unanswered += 1;
        const radius = layers.radius() * (stage.size().width / photo.naturalWidth);
        trigger("stroked", {
            points: places.map(toPoint), radius, erase: stage.tool() === "erase",
        });
    }

    // Choose the object at a place; beside others with Ctrl or Shift.
    function pick(here, event) {
        const object = under(here);
        if (object ? !object.number : !stage.chosen.size) return;
        const more = event.ctrlKey || event.metaKey || event.shiftKey;
        trigger("picked", { number: object ? object.number : null, more });
    }

    // Two fingers: zoom by how far apart they get, and move with their middle.
    function pinch(event) {
        const [one, other] = [...fingers.values()];
        const before = spread(one, other);
        fingers.set(event.pointerId, { clientX: event.clientX, clientY: event.clientY });
        const after = spread(...fingers.values());
        view.zoom(after.apart / before.apart, before);
        view.pan(after.clientX - before.clientX, after.clientY - before.clientY);
    }

    const spread = (one, other) => ({
        apart: Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY)),
        clientX: (one.clientX + other.clientX) / 2,
        clientY: (one.clientY + other.clientY) / 2,
    });

    // Give up what the pointer is doing; return whether there was anything.
    function stop() {
        if (!drag) return false;
        const { kind } = drag;
        drag = null;
        if (kind === "stroke" && !unanswered) layers.clearPaint();
        layers.drawMarks();
        return true;
    }

    frame.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "touch") {
            fingers.set(event.pointerId, { clientX: event.clientX, clientY: event.clientY });
            if (fingers.size > 1) return void stop();
        }
        if (event.pointerType === "mouse" && event.button === 2 && stage.mode() !== "mark") return;
        start(event);
    });
    frame.addEventListener("pointermove", (event) => {
        if (fingers.size === 2 && fingers.has(event.pointerId)) return pinch(event);
        if (drag) return move(event);
        if (event.pointerType !== "mouse") return;
        const here = place(event);
        if (painting() && stage.mode() !== "view") layers.drawMarks({ brush: here });
        pointAt(painting() && stage.mode() === "edit" ? null : under(here), event);
    });
    frame.addEventListener("pointerup", (event) => {
        fingers.delete(event.pointerId);
        if (drag) finish(event);
    });
    frame.addEventListener("pointercancel", (event) => {
        fingers.delete(event.pointerId);
        stop();
    });
    frame.addEventListener("pointerleave", () => {
        if (drag) return;
        pointAt(null);
        layers.drawMarks();
    });
    frame.addEventListener("contextmenu", (event) => {
        if (stage.mode() === "mark") event.preventDefault();
    });

    return {
        stop,
        holdSpace: (held) => {
            space = held;
            root.classList.toggle("is-panning", held);
        },
        // A stroke was answered: its paint goes, unless others wait or another one is being drawn.
        forgetStroke: () => {
            unanswered = Math.max(0, unanswered - 1);
            if (unanswered) return;
            layers.clearPaint();
            if (drag && drag.kind === "stroke") {
                drag.points.forEach((point, i) => layers.stroke(drag.points[Math.max(0, i - 1)], point));
            }
        },
    };
}
