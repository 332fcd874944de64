package kv

import "fmt"

// Validate says why a transaction breaks a limit or is malformed (ErrInvalid),
// or nil. Every implementation calls it first, so that all refuse the same.
func Validate(cmps []Compare, then, els []Op) error {
	if len(cmps) > MaxTxnOps || len(then) > MaxTxnOps || len(els) > MaxTxnOps {
		return fmt.Errorf("%w: %d compares, %d and %d operations: at most %d each",
			ErrInvalid, len(cmps), len(then), len(els), MaxTxnOps)
	}
	size := 0
	for i, c := range cmps {
		if err := validateCompare(c); err != nil {
			return fmt.Errorf("compare %d: %w", i, err)
		}
		size += len(c.Key) + len(c.Value)
	}
	for _, branch := range [][]Op{then, els} {
		changed := make(map[string]bool, len(branch))
		for i, op := range branch {
			if err := validateOp(op); err != nil {
				return fmt.Errorf("operation %d: %w", i, err)
			}
			size += len(op.Key) + len(op.Value)
			if op.Kind == OpGet {
				continue
			}
			if changed[string(op.Key)] {
				return fmt.Errorf("operation %d: %w: key %.64q is changed twice", i, ErrInvalid, op.Key)
			}
			changed[string(op.Key)] = true
		}
	}
	if size > MaxTxnBytes {
		return fmt.Errorf("%w: keys and values of %d bytes: at most %d", ErrInvalid, size, MaxTxnBytes)
	}
	return nil
}

func validateCompare(c Compare) error {
	if err := validateKey(c.Key); err != nil {
		return err
	}
	switch c.Target {
	case CompareModRev, CompareCreateRev:
		if c.Rev < 0 {
			return fmt.Errorf("%w: revision %d of key %.64q is negative", ErrInvalid, c.Rev, c.Key)
		}
		if c.Value != nil {
			return fmt.Errorf("%w: a revision compare of key %.64q carries a value", ErrInvalid, c.Key)
		}
	case CompareValue:
		if c.Rev != 0 {
			return fmt.Errorf("%w: a value compare of key %.64q carries a revision", ErrInvalid, c.Key)
		}
	default:
		return fmt.Errorf("%w: compare target %d", ErrInvalid, c.Target)
	}
	return nil
}

func validateOp(op Op) error {
	if err := validateKey(op.Key); err != nil {
		return err
	}
	switch op.Kind {
	case OpPut:
		if op.Lease < 0 {
			return fmt.Errorf("%w: lease %d of key %.64q is negative", ErrInvalid, op.Lease, op.Key)
		}
	case OpDelete, OpGet:
		if op.Value != nil || op.Lease != 0 {
			return fmt.Errorf("%w: only a put of key %.64q may carry a value or lease", ErrInvalid, op.Key)
		}
	default:
		return fmt.Errorf("%w: operation kind %d", ErrInvalid, op.Kind)
	}
	return nil
}

func validateKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: key of %d bytes: 1 to %d", ErrInvalid, len(key), MaxKeyBytes)
	}
	return nil
}

// Gets returns the operations that read keys, or why they break a limit (ErrInvalid).
func Gets(keys []string) ([]Op, error) {
	ops := make([]Op, len(keys))
	for i, k := range keys {
		ops[i] = Get(k)
	}
	return ops, Validate(nil, ops, nil)
}

// ValidatePrefix says why the arguments of a Range or Watch break a limit (ErrInvalid), or nil.
func ValidatePrefix(prefix, after string) error {
	if len(prefix) > MaxKeyBytes || len(after) > MaxKeyBytes {
		return fmt.Errorf("%w: prefix of %d bytes, after of %d: at most %d", ErrInvalid, len(prefix), len(after), MaxKeyBytes)
	}
	return nil
}
