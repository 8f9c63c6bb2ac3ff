// Package docs keeps the documentation true. Its tests take every command that
// README.md, docs/*.md and the --help texts show, run it against programs of
// their own, and compare what it prints with the output shown; they compare the
// flags of each command with its page, and follow every link.
//
// How a page shows commands:
//
//   - In a ```console block a line that begins with "$ " is a command; it goes
//     on in the next line after a backslash. The lines below it are its output.
//   - In a ```sh block every line is a command, but for comments.
//   - A ```text block right behind a console block is the output of its last
//     command. Other text blocks are excerpts, and so are those that begin with
//     an ellipsis in a line of its own.
//
// Every command has to end with status 0, or with the one that a following
// `echo $?` shows, or with the error message that the page shows. Of the output
// each line shown has to be printed; see normalize for what may differ. A line
// "…" stands for any number of lines, "…" within a line for any text.
//
// Commands run as root in a directory with build/demo/demo, ./server and the
// other files of stage_test.go, in a pid namespace of their page. "4711" and
// "PID" stand for the demo service, or whatever placeholders lists. A command
// that would trace until Ctrl-C gets one.
package docs
