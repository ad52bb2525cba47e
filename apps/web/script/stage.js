// A stage: a photograph with masks and collected objects over it. It shows the scores of what is
// under the pointer, and turns clicks, dragged boxes and brush strokes into events.
//
// props.photo: {src, width, height, name} or null; props.value: {masks, points, boxes};
// props.objects: what was collected; props.chosen: the numbers of those that are chosen.
import { listenToKeys } from "./keys.js";
import { Layers, loadImages, Pictures } from "./layers.js";
import { Legend } from "./legend.js";
import { listenToPointer } from "./pointer.js";
import { View } from "./view.js";

export function startStage({ element, props, watch, trigger }) {
    const root = element.querySelector(".stage");
    const photo = root.querySelector(".stage-photo");
    // What the modules share. Items are masks and objects alike, each with its decoded image.
    const stage = {
        root, photo, trigger,
        masks: [],
        objects: [],
        chosen: new Set(),
        pointedAt: null,  // the item under the pointer
        size: () => props.photo || { width: 1, height: 1 },
        mode: () => (props.photo ? root.dataset.mode : "view"),
        tool: () => (root.dataset.mode === "edit" ? root.dataset.edit : root.dataset.tool),
        points: () => (props.value || {}).points || [],
        boxes: () => (props.value || {}).boxes || [],
        // Drawn at once; the server's answer includes it too.
        addPoint: (point) => {
            props.value = { ...props.value, points: [...stage.points(), point] };
            layers.drawMarks();
        },
    };
    const view = new View(root, () => layers.drawMarks());
    const layers = new Layers(stage, view);
    const legend = new Legend(stage, pointAt);
    const pointer = listenToPointer(stage, view, layers, pointAt);
    const pictures = new Pictures(() => trigger("lacking", {}));

    // Highlight an item, and show its scores beside the pointer; null for none.
    function pointAt(item, event) {
        if (item !== stage.pointedAt) {
            stage.pointedAt = item;
            layers.drawItems();
            legend.mark();
        }
        legend.showTip(item, event);
    }

    // Calls of `show` may overlap; only what the latest one has loaded is used.
    function latest(load, use) {
        let turn = 0;
        return async () => {
            const own = ++turn;
            const loaded = await load();
            if (own === turn) use(loaded);
        };
    }

    function redraw() {
        stage.pointedAt = null;
        layers.drawItems();
        legend.draw();
    }

    const showMasks = latest(
        () => loadImages((props.value || {}).masks || []),
        (masks) => {
            stage.masks = masks;
            redraw();
            layers.drawMarks();
            root.dataset.count = String(masks.length);
            root.dataset.areas = masks.map((mask) => mask.area).join(" ");
            root.dataset.painted = String(Boolean((props.value || {}).painted));
            root.dataset.marks = String(stage.points().length + stage.boxes().length);
        },
    );
    const showObjects = latest(
        () => pictures.loadImages(props.objects || []),
        (objects) => {
            stage.objects = objects;
            redraw();
            root.dataset.objects = String(objects.length);
            root.dataset.objectAreas = objects.map((object) => object.area).join(" ");
        },
    );

    function showChosen() {
        stage.chosen = new Set(props.chosen || []);
        root.dataset.chosen = [...stage.chosen].join(" ");
        redraw();
    }

    async function showPhoto() {
        root.classList.toggle("is-empty", !props.photo);
        view.fit();
        if (!props.photo) {
            photo.removeAttribute("src");
            delete root.dataset.photo;
        } else {
            photo.src = props.photo.src;
            photo.alt = props.photo.name;
            try { await photo.decode(); } catch { return; }
            // At its own size, enlarged to 640 pixels if it is small, but within the window.
            const { naturalWidth, naturalHeight } = photo;
            const high = `calc(70vh * ${naturalWidth / naturalHeight})`;
            photo.style.width = `min(${Math.max(naturalWidth, 640)}px, ${high})`;
            root.dataset.photo = props.photo.name;
        }
        layers.clearPaint();
        showMasks();
        showObjects();
    }

    watch("photo", showPhoto);
    watch("value", () => {
        if ((props.value || {}).clear_paint) layers.clearPaint();
        showMasks();
    });
    watch("objects", showObjects);
    watch("chosen", showChosen);
    new ResizeObserver(() => { view.settle(); }).observe(photo);
    // Sent once the server has answered a stroke, whatever it said.
    root.addEventListener("answered", async () => {
        await showObjects();
        pointer.forgetStroke();
    });
    if ("keys" in root.dataset) {
        listenToKeys(stage, pointer);
        listenToList(stage, pointAt);
    }
    showChosen();
    showPhoto();
    root.dataset.ready = "true";
}

// Highlight the object whose entry in the page's list is under the pointer.
function listenToList(stage, pointAt) {
    let listed = false;
    document.addEventListener("pointerover", ({ target }) => {
        const entry = target instanceof Element && target.closest("#objects [data-testid] > label");
        const number = Number(entry && entry.querySelector("input")?.name);
        if (!number && !listed) return;
        listed = Boolean(number);
        pointAt(stage.objects.find((object) => object.number === number) || null);
    });
}
