// SPDX-License-Identifier: Apache-2.0

import AccessControl
import FoundationEssentials
import HashRing
import TestSupport
import Testing
import TransportSecurity

/// Files of certificates and keys: what is taken, and what is said of the others.
@Suite("Files of certificates and keys")
struct TLSFilesTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func file(_ name: String, _ text: String, mode: Int = 0o400) throws -> String {
        let path = "\(directory.path)/\(name)"
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        return path
    }

    private func identity(_ chain: String, _ key: String) throws -> TLSIdentity {
        try TLSIdentity.read(chain: try file("pem", chain, mode: 0o644), key: try file("key", key), isCredential: false)
    }

    @Test("a certificate and its key, with what leads to the authority or without, are taken and can be used")
    func good() throws {
        for chain in [Certificates.here, Certificates.here + Certificates.authority] {
            let secrets = TLSSecrets(clients: try identity(chain, Certificates.keyOfHere))
            #expect(try TLSContexts(secrets).clients != nil)
            let copy = try JSONDecoder().decode(TLSSecrets.self, from: try JSONEncoder().encode(secrets))
            #expect(copy == secrets)
        }
        #expect(try TLSContexts(TLSSecrets()).clients == nil)
    }

    @Test("what is wrong with a file is said, with its name and nothing of what is in it")
    func bad() throws {
        func message(_ chain: String, _ key: String) -> String {
            let error = #expect(throws: SecretFile.Failure.self) { try identity(chain, key) }
            let text = error?.description ?? ""
            #expect(!text.contains("MIG") && !text.contains("BEGIN"), "a key, in \(text)")
            return text
        }
        #expect(message(Certificates.here, Certificates.keyOfThere).contains("is not that of the certificate in"))
        #expect(message(Certificates.keyOfHere, Certificates.keyOfHere).contains("has no certificate in PEM"))
        #expect(message("", Certificates.keyOfHere).contains("has no certificate in PEM"))
        #expect(message(Certificates.here, Certificates.here).contains("has no key in PEM that can be used"))
        #expect(message(Certificates.here, "").contains("has no key in PEM that can be used"))
        let cut = String(Certificates.keyOfHere.dropLast(80))
        #expect(message(Certificates.here, cut).contains("has no key in PEM that can be used"))
        let long = String(repeating: "a", count: 70_000)
        #expect(message(long, Certificates.keyOfHere).contains("is over 65536 bytes"))
    }

    @Test("a key that others can read is refused, unless it is a credential; so is one that is not there")
    func modes() throws {
        let chain = try file("pem", Certificates.here, mode: 0o644)
        for mode in [0o440, 0o404, 0o644, 0o600 | 0o001] {
            let key = try file("key\(mode)", Certificates.keyOfHere, mode: mode)
            let error = #expect(throws: SecretFile.Failure.self) {
                try TLSIdentity.read(chain: chain, key: key, isCredential: false)
            }
            #expect(error?.description == "the key file \(key) can be read by others than its owner: chmod 400 \(key)")
            #expect(throws: Never.self) { try TLSIdentity.read(chain: chain, key: key, isCredential: true) }
        }
        let error = #expect(throws: SecretFile.Failure.self) {
            try TLSIdentity.read(chain: chain, key: "\(directory.path)/none", isCredential: true)
        }
        #expect(error?.description == "the key file \(directory.path)/none can't be read: No such file or directory")
    }

    @Test(
        "a node's certificate has to be for its address",
        arguments: [("127.0.0.1:5000", true), ("127.0.0.2:5000", false), ("[fd00::7]:5000", false)])
    func names(_ name: String, _ isGood: Bool) throws {
        let chain = try file("pem", Certificates.here)
        let key = try file("key", Certificates.keyOfHere)
        let authority = try file("ca", Certificates.authority)
        let node = try #require(NodeID(name))
        func read() throws -> TLSSecrets.Peers {
            try TLSSecrets.Peers.read(chain: chain, key: key, authority: authority, of: node, isCredential: false)
        }
        if isGood {
            #expect(try TLSContexts(TLSSecrets(peers: try read())).peers != nil)
        } else {
            let error = #expect(throws: SecretFile.Failure.self) { try read() }
            #expect(error?.description.contains("is not for \(node.host)") ?? false)
        }
    }

    @Test("an authority that is none is refused")
    func authority() throws {
        let chain = try file("pem", Certificates.there)
        let key = try file("key", Certificates.keyOfThere)
        let authority = try file("ca", "none")
        let node = try #require(NodeID("[fd00::7]:5000"))
        let error = #expect(throws: SecretFile.Failure.self) {
            try TLSSecrets.Peers.read(chain: chain, key: key, authority: authority, of: node, isCredential: false)
        }
        #expect(error?.description == "the authority file \(authority) has no certificate in PEM")
    }

    @Test("an expired certificate is warned of, and one that is soon to be, once")
    func expiry() throws {
        let identity = try identity(Certificates.here, Certificates.keyOfHere)
        let secrets = TLSSecrets(clients: identity)
        let (first, last) = (1_795_745_481, 4_949_345_481)
        #expect(secrets.warnings(at: first).isEmpty)
        #expect(secrets.warnings(at: first - 1).first?.contains("is not valid yet") ?? false)
        #expect(secrets.warnings(at: last - 15 * 86_400).isEmpty)
        #expect(secrets.warnings(at: last - 3 * 86_400).first?.hasSuffix("expires in 3 days") ?? false)
        #expect(secrets.warnings(at: last + 1).first?.contains("has expired") ?? false)
        #expect(secrets.warnings(at: last + 1).count == 1)
    }
}
