// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
private import Glibc

/// `kvctl`: the store in an operator's hands.
@main
struct ControlCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kvctl",
        abstract: "Reads, writes, watches and reshapes a key-value store.",
        discussion: """
            It asks the node or balancer that --node or KVCTL_NODE names, and learns of all others from it.

            Exit status: 0 done; 1 failed or refused; 2 unavailable, nothing was changed, try again; 3 unknown: a write \
            that may have been done; 4 there is no such pair, or node; 5 a condition does not hold; 64 wrong usage.

            Shell completions: kvctl --generate-completion-script bash (or zsh, fish).
            """,
        version: programVersion,
        subcommands: [
            GetCommand.self, PutCommand.self, DeleteCommand.self, IncrementCommand.self, ListCommand.self,
            StatusCommand.self, RingCommand.self, BackupCommand.self, VerifyCommand.self, RestoreCommand.self,
            WatchCommand.self, BenchCommand.self, HAProxyCommand.self,
        ])

    /// A pipe whose reader has gone ends a write with an error, not this process.
    static func main() async {
        signal(SIGPIPE, SIG_IGN)
        Console.guardDescriptors()
        // (Swift's arguments have U+FFFD for each byte that is none of UTF-8: another key than the one that was meant.)
        for index in 0..<Int(CommandLine.argc) {
            guard let argument = CommandLine.unsafeArgv[index], String(validatingCString: argument) == nil else {
                continue
            }
            Console.error("argument \(index) is not UTF-8; a value of any bytes can be put by --file or standard input")
            exit(ExitCode.validationFailure)
        }
        await main(nil)
    }

    private static func exit(_ code: ExitCode) -> Never { Glibc.exit(code.rawValue) }
}

/// The version of this program.
let programVersion = "0.1.0"
