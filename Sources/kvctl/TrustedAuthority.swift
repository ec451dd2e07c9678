// SPDX-License-Identifier: Apache-2.0

private import Control
private import Glibc
internal import NIOSSL

/// The authority that has signed the nodes' certificates, found in a file. Whoever names one speaks TLS.
enum TrustedAuthority {
    /// - Parameter file: what the command line says; nil: what the environment says.
    /// - Returns: nil where neither names one: then nodes are spoken to in plain text.
    static func certificates(named file: String?) throws(Failure) -> [NIOSSLCertificate]? {
        let named = file ?? getenv("KVCTL_CA").map { String(cString: $0) }
        guard let path = named, !path.isEmpty else { return nil }
        guard access(path, R_OK) == 0 else {
            throw Failure(.refused, "the authority's file \(path) can't be read: \(String(cString: strerror(errno)))")
        }
        guard let found = try? NIOSSLCertificate.fromPEMFile(path), !found.isEmpty else {
            throw Failure(.refused, "the authority's file \(path) has no certificate in PEM")
        }
        return found
    }

    /// What is wrong with the connection, where it is that; nil where it is something else.
    static func reason(of error: any Error) -> String? {
        if error is NIOSSLExtraError { return "its certificate is not for that address" }
        let text: String
        switch error {
        case NIOSSLError.handshakeFailed(let reason): text = "\(reason)"
        default: return nil
        }
        if text.contains("CERTIFICATE_VERIFY_FAILED") {
            return "its certificate is not one that --ca's authority has signed, or has expired"
        }
        if text.contains("WRONG_VERSION_NUMBER") || text.contains("HTTP_") || text.contains("EOF during handshake") {
            return "it does not speak TLS here; leave --ca away"
        }
        return text
    }
}
