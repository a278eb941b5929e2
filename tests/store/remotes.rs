//! What happens to remotes: they die, they are full, they refuse, others write to them.
