// What lies over the photograph: canvases for objects, masks, paint and marks.
const PAINT = "#E69F00";
const ERASED = "#fff";

// Return items with their images, those that could not be decoded left out; hidden ones have none.
export async function loadImages(items) {
    return withImages(items, await Promise.all(items.map(({ src }) => (src ? load(src) : null))));
}

// The images of objects, by the names of their pictures. The server sends a picture once, and only
// its name as long as it is shown.
export class Pictures {
    constructor(lacking) {
        this.lacking = lacking;  // called when a picture is named that is not here
        this.loading = new Map();
    }

    async loadImages(items) {
        const before = this.loading;
        this.loading = new Map();
        let lacks = false;
        for (const { picture, src } of items) {
            const image = before.get(picture) || (src ? load(src) : null);
            if (picture && image) this.loading.set(picture, image);
            lacks ||= Boolean(picture && !image);
        }
        if (lacks) this.lacking();
        return withImages(
            items, await Promise.all(items.map(({ picture }) => this.loading.get(picture) || null))
        );
    }
}

const NO_IMAGE = { image: null, solid: () => false };

function withImages(items, images) {
    return items
        .map((item, i) => ({ ...item, ...(images[i] || NO_IMAGE) }))
        .filter((item) => item.image || item.hidden);
}

// Return a promise of an image with its hit test; of null if it cannot be decoded.
function load(src) {
    return new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve({ image, solid: solid(image) });
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

export class Layers {
    constructor(stage, view) {
        this.stage = stage;
        this.view = view;
        const canvas = (name) => stage.root.querySelector(`.stage-${name}`);
        this.objects = canvas("objects");
        this.masks = canvas("masks");
        this.paint = canvas("paint");
        this.marks = canvas("marks");
    }

    // Return a canvas's context, once it is as large as the photograph.
    fit(canvas) {
        const { naturalWidth, naturalHeight } = this.stage.photo;
        if (canvas.width !== naturalWidth || canvas.height !== naturalHeight) {
            canvas.width = naturalWidth || 1;
            canvas.height = naturalHeight || 1;
        }
        return canvas.getContext("2d");
    }

    // Pixels of a canvas in one of the screen, so that marks are as large at any zoom.
    unit() {
        const shown = Math.max(1, this.stage.photo.clientWidth) * this.view.scale;
        return this.marks.width / shown;
    }

    drawItems() {
        const { masks, objects, chosen } = this.stage;
        this.drawAll(this.objects, objects);
        const context = this.objects.getContext("2d");
        for (const object of objects) {
            if (chosen.has(object.number)) this.frame(context, this.objects, object.box, true);
        }
        // Worst first, so that the best is on top.
        this.drawAll(this.masks, [...masks].reverse());
    }

    // Draw items, the one under the pointer last, above all others.
    drawAll(canvas, items) {
        const { pointedAt } = this.stage;
        const context = this.fit(canvas);
        const { width, height } = canvas;
        context.clearRect(0, 0, width, height);
        const order = items.filter((item) => item.image && item !== pointedAt);
        if (items.includes(pointedAt) && pointedAt.image) order.push(pointedAt);
        for (const item of order) {
            const [x0, y0, x1, y1] = item.box;
            context.globalAlpha = !pointedAt || pointedAt === item ? 1 : 0.2;
            context.drawImage(
                item.image, x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height
            );
        }
        context.globalAlpha = 1;
    }

    frame(context, canvas, [x0, y0, x1, y1], dashed) {
        const { width, height } = canvas;
        const unit = this.unit();
        for (const [color, thick] of [["#000", 4], ["#fff", 2]]) {
            context.strokeStyle = color;
            context.lineWidth = thick * unit;
            context.setLineDash(dashed && color === "#fff" ? [6 * unit, 5 * unit] : []);
            context.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
        }
        context.setLineDash([]);
    }

    // Draw clicks and boxes, and what follows the pointer: a box being dragged, or the brush.
    drawMarks({ box, brush } = {}) {
        const context = this.fit(this.marks);
        const { width, height } = this.marks;
        const size = this.stage.size();
        context.clearRect(0, 0, width, height);
        for (const [x0, y0, x1, y1] of this.stage.boxes()) {
            const share = [x0 / size.width, y0 / size.height, x1 / size.width, y1 / size.height];
            this.frame(context, this.marks, share, false);
        }
        if (box) this.frame(context, this.marks, box, false);
        for (const [x, y, label] of this.stage.points()) {
            const cx = ((x + 0.5) / size.width) * width, cy = ((y + 0.5) / size.height) * height;
            this.drawPoint(context, cx, cy, label === 1);
        }
        if (brush) {
            context.strokeStyle = "#fff";
            context.lineWidth = 1.5 * this.unit();
            context.beginPath();
            context.arc(brush.u * width, brush.v * height, this.radius(), 0, 2 * Math.PI);
            context.stroke();
        }
    }

    drawPoint(context, cx, cy, foreground) {
        const unit = this.unit();
        context.beginPath();
        context.arc(cx, cy, 7 * unit, 0, 2 * Math.PI);
        context.fillStyle = foreground ? "#16a34a" : "#dc2626";
        context.fill();
        context.lineWidth = 2 * unit;
        context.strokeStyle = "#fff";
        context.stroke();
        context.beginPath();
        context.moveTo(cx - 3.5 * unit, cy);
        context.lineTo(cx + 3.5 * unit, cy);
        if (foreground) {
            context.moveTo(cx, cy - 3.5 * unit);
            context.lineTo(cx, cy + 3.5 * unit);
        }
        context.stroke();
    }

    // The brush's radius, in pixels of the canvases.
    radius() {
        const { naturalWidth, naturalHeight } = this.stage.photo;
        const share = Number(this.stage.root.dataset.brush || 6) / 200;
        return Math.max(0.5, share * Math.min(naturalWidth, naturalHeight));
    }

    // Draw a piece of a stroke. Objects are changed by the server: until then erasing shows white.
    stroke(from, to) {
        const context = this.fit(this.paint);
        const { width, height } = this.paint;
        const erase = this.stage.tool() === "erase", edit = this.stage.mode() === "edit";
        const own = this.stage.objects.find((object) => this.stage.chosen.has(object.number));
        context.globalCompositeOperation = erase && !edit ? "destination-out" : "source-over";
        context.strokeStyle = edit ? (erase ? ERASED : own?.color || PAINT) : PAINT;
        context.lineCap = "round";
        context.lineWidth = 2 * this.radius();
        context.beginPath();
        context.moveTo(from.u * width, from.v * height);
        context.lineTo(to.u * width + 0.01, to.v * height);
        context.stroke();
    }

    clearPaint() {
        this.fit(this.paint).clearRect(0, 0, this.paint.width, this.paint.height);
    }
}
