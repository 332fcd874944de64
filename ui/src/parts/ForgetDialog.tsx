import { toast } from "../store/toasts";
import { Confirm } from "./Dialog";

type Props = {
  name: string;
  /** Where nothing changes: "cloud". */
  what: string;
  forget: () => Promise<unknown>;
  onClose: () => void;
};

/** Forgets how to sign in to another system. */
export function ForgetDialog({ name, what, forget, onClose }: Props) {
  return (
    <Confirm
      title={`Forget ${name}`}
      verb="Forget"
      danger
      typeName={name}
      consequences={["Address, user and password are forgotten.", `Nothing at the ${what} changes.`]}
      onClose={onClose}
      act={async () => {
        await forget();
        toast("ok", `${name} is forgotten`);
      }}
    />
  );
}
