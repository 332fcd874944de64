import { path } from "../router";
import { Link } from "../parts/Link";
import { Empty, Page } from "../parts/Page";
import { msg } from "../text";

export function NotFoundPage() {
  return (
    <Page title={msg`Page not found`}>
      <Empty title={msg`Nothing lives here`} text={msg`This console has no page at ${path.value}.`}>
        <Link class="btn" to="/">
          {msg`Go to the overview`}
        </Link>
      </Empty>
    </Page>
  );
}
