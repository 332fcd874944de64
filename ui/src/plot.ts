// The chart library, an entry of its own: it is a third of the script and only pages with charts load it.
export { default } from "uplot";
