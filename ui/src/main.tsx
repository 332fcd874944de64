import { render } from "preact";
import "./css/app.css";
import { App } from "./app";
import { keepJournal } from "./store/journal";
import { follow } from "./store/live";
import { apply } from "./theme";

apply();
follow();
keepJournal();
const place = document.getElementById("app");
if (place) {
  render(<App />, place);
}
