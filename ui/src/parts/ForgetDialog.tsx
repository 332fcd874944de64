import { toast } from "../store/toasts";
import { Confirm } from "./Dialog";
import { msg } from "../text";

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
      title={msg`Forget ${name}`}
      verb={msg`Forget`}
      danger
      typeName={name}
      consequences={[msg`Address, user and password are forgotten.`, msg`Nothing at the ${what} changes.`]}
      onClose={onClose}
      act={async () => {
        await forget();
        toast("ok", msg`${name} is forgotten`);
      }}
    />
  );
}
