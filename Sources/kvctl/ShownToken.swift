// SPDX-License-Identifier: Apache-2.0

private import AccessControl
private import Control
private import Glibc

/// The tokens that are shown to the nodes, found in a file: no command has one among its arguments or in its
/// environment.
enum ShownToken {
    /// - Parameter file: what the command line says; nil: what the environment says, else the first file that there is
    ///   of systemd's credential `token`, this user's own and this machine's node's.
    /// - Returns: values of an `Authorization` field: of a token, of two while it is being changed, or of none.
    static func authorizations(named file: String?) throws(Failure) -> [String] {
        if let file = file ?? variable("KVCTL_TOKEN_FILE") { return try read(file, isCredential: false) }
        if let directory = variable("CREDENTIALS_DIRECTORY"), access("\(directory)/token", R_OK) == 0 {
            return try read("\(directory)/token", isCredential: true)
        }
        let home = variable("XDG_CONFIG_HOME") ?? variable("HOME").map { $0 + "/.config" }
        for path in [home.map { $0 + "/kvctl/token" }, "/etc/kvserver/tokens/admin"].compactMap(\.self)
        where access(path, R_OK) == 0 {
            return try read(path, isCredential: false)
        }
        return []
    }

    private static func read(_ path: String, isCredential: Bool) throws(Failure) -> [String] {
        do {
            return try TokenFile.read(path, isCredential: isCredential).map(\.authorization)
        } catch {
            throw Failure(.refused, error.description)
        }
    }

    private static func variable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }
}
