// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import Glibc
internal import HashRing

/// What every command takes.
struct CommonOptions: ParsableArguments {
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "A node or the balancer (KVCTL_NODE, else \(CommonOptions.usualNode)).", valueName: "ip:port"))
    var node: String?

    @Option(help: ArgumentHelp("How long an answer may take.", valueName: "seconds"))
    var timeout = 10.0

    @Option(
        help: ArgumentHelp(
            "A file of the token to show (KVCTL_TOKEN_FILE, ~/.config/kvctl/token, /etc/kvserver/tokens/admin).",
            valueName: "file"))
    var tokenFile: String?

    @Option(
        help: ArgumentHelp(
            "Speak TLS, to nodes whose certificates the authority in this file has signed (KVCTL_CA).",
            valueName: "file"))
    var ca: String?

    @Flag(help: "Print JSON.")
    var json = false

    /// The balancer of `./setup.sh local`.
    static let usualNode = "127.0.0.10:5000"

    func validate() throws {
        guard timeout > 0, timeout <= 86_400 else { throw ValidationError("--timeout takes seconds, up to a day.") }
        guard NodeID(address) != nil else {
            throw ValidationError("--node, or KVCTL_NODE, is a literal ip:port, such as 10.0.0.5:5000: \(address)")
        }
    }

    private var address: String {
        node ?? getenv("KVCTL_NODE").map { String(cString: $0) } ?? CommonOptions.usualNode
    }

    var entrance: NodeID {
        guard let node = NodeID(address) else { preconditionFailure("validated") }
        return node
    }

    /// `StoreClient.use` with a client as these options want it.
    func withClient(
        connections: Int = StoreClient.usualConnections, _ body: (StoreClient) async throws -> Void
    ) async throws {
        try await StoreClient.use(
            entrance: entrance, seconds: timeout, connections: connections, tokenFile: tokenFile, ca: ca,
            body)
    }
}

/// Why a command did not do what it was told: one line that says what to do, and what became of it.
struct Failure: Error {
    let outcome: RequestOutcome
    let message: String
    /// Whether nobody needs to be told.
    let isSilent: Bool

    init(_ outcome: RequestOutcome, _ message: String, isSilent: Bool = false) {
        self.outcome = outcome
        self.message = message
        self.isSilent = isSilent
    }
}
