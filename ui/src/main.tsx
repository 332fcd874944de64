import { render } from "preact";
import "./css/app.css";
import { App } from "./app";
import { follow } from "./store/live";
import { apply } from "./theme";

apply();
follow();
const place = document.getElementById("app");
if (place) {
  render(<App />, place);
}
