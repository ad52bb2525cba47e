// The body of a function that Gradio calls once per stage, with `element`, `trigger`, `props` and
// `watch` in scope. It draws a photograph with its masks, shows the scores of the mask under the
// pointer, and turns clicks, dragged boxes and brush strokes into events.
//
// props.photo: {src, width, height, name} or null; props.value: {masks, points, boxes}.
const stage = element.querySelector(".stage");
const frame = stage.querySelector(".stage-frame");
const photo = stage.querySelector(".stage-photo");
const maskLayer = stage.querySelector(".stage-masks");
const paintLayer = stage.querySelector(".stage-paint");
const markLayer = stage.querySelector(".stage-marks");
const tip = stage.querySelector(".stage-tip");
const legend = stage.querySelector(".stage-legend");

let masks = [];      // the masks of props.value, each with its decoded image
let chosen = -1;     // index of the highlighted mask
let drag = null;     // while the pointer is down: where it started and is
let drawing = 0;     // number of the latest redraw; older ones that finish later are dropped

const size = () => props.photo || { width: 1, height: 1 };
const tool = () => stage.dataset.tool;
const marking = () => stage.dataset.mode === "mark" && props.photo;

function fit(canvas) {
    const { naturalWidth, naturalHeight } = photo;
    if (canvas.width !== naturalWidth || canvas.height !== naturalHeight) {
        canvas.width = naturalWidth || 1;
        canvas.height = naturalHeight || 1;
    }
    return canvas.getContext("2d", { willReadFrequently: canvas === maskLayer });
}

function place(event) {
    const rect = photo.getBoundingClientRect();
    const within = (value) => Math.min(0.999999, Math.max(0, value));
    return {
        u: within((event.clientX - rect.left) / rect.width),
        v: within((event.clientY - rect.top) / rect.height),
    };
}

const toPixels = ({ u, v }) => [Math.floor(u * size().width), Math.floor(v * size().height)];

function load(src) {
    return new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve(image);
        image.onerror = () => resolve(null);
        image.src = src;
    });
}

// Return a function that tells whether a mask is opaque at a place, for hit tests.
function solid(image) {
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, image.width, image.height).data;
    return (u, v) => {
        const x = Math.floor(u * image.width), y = Math.floor(v * image.height);
        if (x < 0 || y < 0 || x >= image.width || y >= image.height) return false;
        return data[4 * (y * image.width + x) + 3] > 0;
    };
}

async function showMasks() {
    const turn = ++drawing;
    const value = props.value || { masks: [] };
    const images = await Promise.all(value.masks.map((mask) => load(mask.src)));
    if (turn !== drawing) return;
    masks = value.masks
        .map((mask, i) => ({ ...mask, image: images[i] }))
        .filter((mask) => mask.image)
        .map((mask) => ({ ...mask, solid: solid(mask.image) }));
    chosen = -1;
    drawMasks();
    drawMarks();
    drawLegend();
    stage.dataset.count = String(masks.length);
    stage.dataset.areas = masks.map((mask) => mask.area).join(" ");
    stage.dataset.marks = String((value.points || []).length + (value.boxes || []).length);
}

function drawMasks() {
    const context = fit(maskLayer);
    const { width, height } = maskLayer;
    context.clearRect(0, 0, width, height);
    // Worst first, so that the best is on top; the highlighted one last, above all others.
    const order = masks.map((_, i) => i).reverse();
    if (chosen >= 0) order.push(...order.splice(order.indexOf(chosen), 1));
    for (const i of order) {
        const [x0, y0, x1, y1] = masks[i].box;
        context.globalAlpha = chosen < 0 || chosen === i ? 1 : 0.2;
        context.drawImage(
            masks[i].image, x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height
        );
    }
    context.globalAlpha = 1;
}

function drawMarks(rubber) {
    const context = fit(markLayer);
    const { width, height } = markLayer;
    const value = props.value || {};
    const unit = width / Math.max(1, photo.clientWidth);
    context.clearRect(0, 0, width, height);
    const boxes = (value.boxes || []).map(([x0, y0, x1, y1]) => [
        x0 / size().width, y0 / size().height, x1 / size().width, y1 / size().height,
    ]);
    if (rubber) boxes.push(rubber);
    for (const [x0, y0, x1, y1] of boxes) {
        for (const [color, thick] of [["#000", 4], ["#fff", 2]]) {
            context.strokeStyle = color;
            context.lineWidth = thick * unit;
            context.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
        }
    }
    for (const [x, y, label] of value.points || []) {
        const cx = ((x + 0.5) / size().width) * width, cy = ((y + 0.5) / size().height) * height;
        context.beginPath();
        context.arc(cx, cy, 7 * unit, 0, 2 * Math.PI);
        context.fillStyle = label === 1 ? "#16a34a" : "#dc2626";
        context.fill();
        context.lineWidth = 2 * unit;
        context.strokeStyle = "#fff";
        context.stroke();
        context.beginPath();
        context.moveTo(cx - 3.5 * unit, cy);
        context.lineTo(cx + 3.5 * unit, cy);
        if (label === 1) {
            context.moveTo(cx, cy - 3.5 * unit);
            context.lineTo(cx, cy + 3.5 * unit);
        }
        context.stroke();
    }
}

function drawLegend() {
    legend.replaceChildren(...masks.map((mask, i) => {
        const chip = document.createElement("button");
        const swatch = document.createElement("i");
        chip.type = "button";
        swatch.style.background = mask.color;
        chip.append(swatch, `${i + 1} ${mask.label} ${mask.score.toFixed(2)}`);
        chip.addEventListener("pointerenter", () => choose(i));
        chip.addEventListener("focus", () => choose(i));
        chip.addEventListener("pointerleave", () => choose(-1));
        chip.addEventListener("blur", () => choose(-1));
        return chip;
    }));
}

function choose(i, event) {
    if (i !== chosen) {
        chosen = i;
        drawMasks();
        [...legend.children].forEach((chip, j) => chip.classList.toggle("chosen", j === i));
    }
    const mask = masks[i];
    tip.hidden = !mask || !event;
    if (tip.hidden) return;
    const rows = [
        ["score", mask.score], ["IoU prediction", mask.iou],
        ["stability", mask.stability], ["prompt", mask.prompt],
    ];
    const title = document.createElement("strong");
    title.textContent = `${i + 1} ${mask.label}`;
    tip.replaceChildren(title, ...rows.map(([name, number]) => {
        const row = document.createElement("span");
        row.textContent = `${name} ${number.toFixed(2)}`;
        return row;
    }));
    const rect = frame.getBoundingClientRect();
    const x = event.clientX - rect.left, y = event.clientY - rect.top;
    const left = Math.max(4, Math.min(x + 14, rect.width - tip.offsetWidth - 4));
    tip.style.left = `${left}px`;
    tip.style.top = `${y > rect.height / 2 ? y - tip.offsetHeight - 14 : y + 18}px`;
}

// The smallest mask under the pointer: a part rather than its whole.
function under({ u, v }) {
    let best = -1;
    masks.forEach((mask, i) => {
        const [x0, y0, x1, y1] = mask.box;
        if (!mask.solid((u - x0) / (x1 - x0), (v - y0) / (y1 - y0))) return;
        if (best < 0 || mask.area < masks[best].area) best = i;
    });
    return best;
}

function stroke(from, to) {
    const context = fit(paintLayer);
    const { width, height } = paintLayer;
    context.globalCompositeOperation = tool() === "erase" ? "destination-out" : "source-over";
    context.strokeStyle = "#E69F00";
    context.lineCap = "round";
    context.lineWidth = (Number(stage.dataset.brush || 6) / 100) * Math.min(width, height);
    context.beginPath();
    context.moveTo(from.u * width, from.v * height);
    context.lineTo(to.u * width + 0.01, to.v * height);
    context.stroke();
}

function clearPaint() {
    fit(paintLayer).clearRect(0, 0, paintLayer.width, paintLayer.height);
}

const painting = () => tool() === "paint" || tool() === "erase";

frame.addEventListener("pointerdown", (event) => {
    if (!marking()) return choose(under(place(event)), event);
    if (event.pointerType === "mouse" && event.button !== 0 && event.button !== 2) return;
    drag = { from: place(event), last: place(event), right: event.button === 2, moved: false };
    drag.clientX = event.clientX;
    drag.clientY = event.clientY;
    if (painting()) stroke(drag.from, drag.from);
    if (event.pointerType === "mouse" || tool() === "box" || painting()) {
        frame.setPointerCapture(event.pointerId);
        event.preventDefault();
    }
});

frame.addEventListener("pointermove", (event) => {
    if (!props.photo) return;
    const here = place(event);
    if (!drag) {
        if (event.pointerType === "mouse") choose(under(here), event);
        return;
    }
    const far = Math.hypot(event.clientX - drag.clientX, event.clientY - drag.clientY) > 5;
    drag.moved = drag.moved || far;
    if (painting()) stroke(drag.last, here);
    else if (drag.moved && !drag.right) {
        const { u, v } = drag.from;
        drawMarks([Math.min(u, here.u), Math.min(v, here.v), Math.max(u, here.u), Math.max(v, here.v)]);
    }
    drag.last = here;
});

frame.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { from, right, moved } = drag;
    const here = place(event);
    drag = null;
    choose(-1);
    if (painting()) return trigger("painted", { png: paintLayer.toDataURL("image/png") });
    if (moved && !right) {
        return trigger("marked", { box: [...toPixels(from), ...toPixels(here)] });
    }
    if (tool() === "box") return drawMarks();
    const label = right || tool() === "background" ? 0 : 1;
    const [x, y] = toPixels(here);
    // Drawn at once; the server's answer includes it too.
    props.value = { ...props.value, points: [...(props.value.points || []), [x, y, label]] };
    drawMarks();
    trigger("marked", { point: [x, y], label });
});

frame.addEventListener("pointercancel", () => { drag = null; drawMarks(); });
frame.addEventListener("pointerleave", () => { if (!drag) choose(-1); });
frame.addEventListener("contextmenu", (event) => { if (marking()) event.preventDefault(); });

async function showPhoto() {
    stage.classList.toggle("is-empty", !props.photo);
    if (!props.photo) {
        photo.removeAttribute("src");
        delete stage.dataset.photo;
    } else {
        photo.src = props.photo.src;
        photo.alt = props.photo.name;
        try { await photo.decode(); } catch { return; }
        // At its own size, enlarged to 640 pixels if it is small, but within the window.
        const { naturalWidth, naturalHeight } = photo;
        const high = `calc(70vh * ${naturalWidth / naturalHeight})`;
        photo.style.width = `min(${Math.max(naturalWidth, 640)}px, ${high})`;
        stage.dataset.photo = props.photo.name;
    }
    clearPaint();
    showMasks();
}

watch("photo", showPhoto);
watch("value", () => {
    if ((props.value || {}).clear_paint) clearPaint();
    showMasks();
});
new ResizeObserver(() => { if (!drag) drawMarks(); }).observe(frame);
showPhoto();
