// The keyboard, wherever on the page no text is being typed: Ctrl+Z undoes, Ctrl+Y and
// Ctrl+Shift+Z redo, Delete removes the chosen objects, Escape gives up what is going on, and with
// the space bar held the pointer moves the photograph.
const TYPING = "textarea, input:not([type=checkbox], [type=radio], [type=range]), [contenteditable=true]";

export function listenToKeys(stage, pointer) {
    const { root, trigger } = stage;
    let over = false;
    root.addEventListener("pointerenter", () => { over = true; });
    root.addEventListener("pointerleave", () => { over = false; });

    // Press a button of the page; return whether it could be pressed.
    function press(id) {
        const button = document.querySelector(id);
        if (!button || button.disabled) return false;
        button.click();
        return true;
    }

    function giveUp(typing) {
        if (pointer.stop()) return true;
        if (document.querySelector(".searching")) return press("#cancel");
        if (typing) return false;
        if (stage.mode() === "mark" && Number(root.dataset.marks)) return press("#clear");
        if (!stage.chosen.size) return false;
        trigger("picked", { number: null, more: false });
        return true;
    }

    function act(event) {
        const typing = event.target instanceof Element && event.target.closest(TYPING) !== null;
        if (event.key === "Escape") return giveUp(typing);
        if (typing || event.altKey) return false;
        const key = event.key.toLowerCase();
        if (event.ctrlKey || event.metaKey) {
            if (key === "z") return press(event.shiftKey ? "#redo" : "#undo");
            return key === "y" && press("#redo");
        }
        if (event.key === "Delete" && stage.chosen.size) {
            trigger("deleted", {});
            return true;
        }
        if (event.key !== " " || !over) return false;
        pointer.holdSpace(true);
        return true;
    }

    document.addEventListener("keydown", (event) => {
        if (!event.defaultPrevented && act(event)) event.preventDefault();
    });
    document.addEventListener("keyup", (event) => {
        if (event.key === " ") pointer.holdSpace(false);
    });
    window.addEventListener("blur", () => pointer.holdSpace(false));
}
