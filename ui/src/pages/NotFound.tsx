import { path } from "../router";
import { Link } from "../parts/Link";
import { Empty, Page } from "../parts/Page";

export function NotFoundPage() {
  return (
    <Page title="Page not found">
      <Empty title="Nothing lives here" text={`This console has no page at ${path.value}.`}>
        <Link class="btn" to="/">
          Go to the overview
        </Link>
      </Empty>
    </Page>
  );
}
