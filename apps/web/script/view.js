// Which part of the photograph is seen: zoomed by the wheel, buttons and two fingers, and moved.
const MOST = 8;
const STEP = 1.5;
// After the page has scrolled, the wheel goes on scrolling it for so many milliseconds.
const SCROLLING = 250;

export class View {
    constructor(root, changed) {
        this.root = root;
        this.window = root.querySelector(".stage-window");
        this.view = root.querySelector(".stage-view");
        this.changed = changed;
        this.scale = 1;
        this.x = 0;
        this.y = 0;
        let scrolled = -Infinity;
        document.addEventListener("scroll", () => { scrolled = performance.now(); }, true);
        this.window.addEventListener("wheel", (event) => {
            const out = event.deltaY > 0 && this.scale === 1;
            if (out || performance.now() - scrolled < SCROLLING) return;
            event.preventDefault();
            const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
            this.zoom(Math.exp(-event.deltaY * lines / 400), event);
        }, { passive: false });
        root.querySelector(".stage-zoom").addEventListener("click", (event) => {
            const step = event.target.dataset.step;
            if (step === "fit") this.fit();
            else if (step) this.zoom(step === "in" ? STEP : 1 / STEP);
        });
    }

    // Zoom about a place in the window, by default its middle.
    zoom(factor, place) {
        const rect = this.window.getBoundingClientRect();
        const px = place ? place.clientX - rect.left : rect.width / 2;
        const py = place ? place.clientY - rect.top : rect.height / 2;
        let scale = Math.min(MOST, Math.max(1, this.scale * factor));
        if (scale < 1.02) scale = 1;
        this.x = px - (px - this.x) * (scale / this.scale);
        this.y = py - (py - this.y) * (scale / this.scale);
        this.scale = scale;
        this.settle();
    }

    pan(dx, dy) {
        this.x += dx;
        this.y += dy;
        this.settle();
    }

    fit() {
        this.scale = 1;
        this.settle();
    }

    // Keep the photograph within its window.
    settle() {
        const { clientWidth, clientHeight } = this.window;
        this.x = Math.min(0, Math.max(clientWidth * (1 - this.scale), this.x));
        this.y = Math.min(0, Math.max(clientHeight * (1 - this.scale), this.y));
        this.view.style.transform =
            this.scale === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
        this.root.classList.toggle("is-zoomed", this.scale > 1);
        this.root.dataset.zoom = this.scale.toFixed(2);
        this.changed();
    }
}
