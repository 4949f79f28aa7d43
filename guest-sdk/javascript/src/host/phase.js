// A component's module runs to its end when the component is built, long before
// there is a host. Calling it then would stop the build with a message about an
// import, so this comes first.

let building = true;

/** Called before each event. */
export function beginEvents() {
  building = false;
}

/** Throws while the component is built. */
export function requireEvent(what) {
  if (building) {
    throw new Error(
      `${what} can be used only while an event is handled; ` +
        "the top level of a module runs when the component is built, and never again",
    );
  }
}
