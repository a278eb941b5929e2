//! Help texts and refusals as a person sees them: tests/cmd/*.trycmd, one file a subject.
//! `TRYCMD=overwrite cargo test --test cmd` writes them; the diff is for a person to read.

#[test]
fn what_is_typed_is_answered_as_written_down() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
