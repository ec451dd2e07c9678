// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import Glibc

/// What can be set, by its name in the configuration file.
package enum Setting: String, Sendable, CaseIterable {
    case node, listen, workers, memcached, stateDirectory, snapshotSeconds, appendLog, repairSeconds, uploadSeconds
    case consistency, readQuorum, writeQuorum, requestDeadlineMilliseconds, drainSeconds
    case corsOrigins
    case dataTokenFile, adminTokenFile, peerTokenFile, peers, insecure
    case tlsCertificateFile, tlsKeyFile, peerCertificateFile, peerKeyFile, peerAuthorityFile
    case etcd, etcdPrefix, memcachedPort, peerPortOffset
    case logLevel, logFormat, slowRequestMilliseconds, traceSpans
    case allowFailpoints, failpointsFile, clockOffsetMilliseconds

    /// `KVSERVER_STATE_DIRECTORY` for `stateDirectory`.
    package var environmentName: String {
        rawValue.reduce(into: "KVSERVER_") { name, letter in
            if letter.isUppercase { name.append("_") }
            name.append(letter.uppercased())
        }
    }
}

/// Why the daemon can't run as it is told; one line that names the setting and its origin.
package struct ConfigurationError: Error, Sendable, CustomStringConvertible {
    package let description: String
    /// Whether it is the command line that is wrong.
    package let isUsage: Bool

    package init(_ description: String, isUsage: Bool = false) {
        self.description = description
        self.isUsage = isUsage
    }
}

/// The settings from one place, as text.
package struct ConfigurationLayer: Sendable, Hashable {
    package let origin: String
    package let values: [Setting: String]

    let isCommandLine: Bool

    private init(origin: String, values: [Setting: String], isCommandLine: Bool = false) {
        self.origin = origin
        self.values = values
        self.isCommandLine = isCommandLine
    }

    /// Those that were given on the command line.
    package init(flags values: [Setting: String]) {
        self.init(origin: "on the command line", values: values, isCommandLine: true)
    }

    /// Those of the environment that are ours. An empty variable counts as none.
    package init(environment: [String: String]) {
        var values: [Setting: String] = [:]
        for setting in Setting.allCases {
            if let text = environment[setting.environmentName], !text.isEmpty { values[setting] = text }
        }
        self.init(origin: "from the environment", values: values)
    }

    /// The files of tokens, certificates and keys that systemd has made for this service alone (`LoadCredential=`),
    /// those that there are.
    package init(credentials directory: String) {
        var values: [Setting: String] = [:]
        for (setting, name) in [
            (Setting.dataTokenFile, "data-token"), (.adminTokenFile, "admin-token"), (.peerTokenFile, "peer-token"),
            (.tlsCertificateFile, "tls-certificate"), (.tlsKeyFile, "tls-key"),
            (.peerCertificateFile, "peer-certificate"), (.peerKeyFile, "peer-key"),
            (.peerAuthorityFile, "peer-authority"),
        ] where access("\(directory)/\(name)", F_OK) == 0 {
            values[setting] = "\(directory)/\(name)"
        }
        self.init(origin: "in \(directory)", values: values)
    }

    /// The file is one JSON object of texts, numbers and booleans. An unknown key is an error: it is a misspelt one.
    package init(file path: String) throws(ConfigurationError) {
        let data: Data
        do {
            data = try Data(contentsOf: URL(filePath: path))
        } catch {
            throw ConfigurationError("can't read \(path): \(ConfigurationLayer.reason(error))")
        }
        try self.init(json: data, path: path)
    }

    package init(json: some Sequence<UInt8>, path: String) throws(ConfigurationError) {
        let object: [String: Scalar]
        do {
            object = try JSONDecoder().decode([String: Scalar].self, from: Data(json))
        } catch {
            throw ConfigurationError("\(path) is not a JSON object of settings: \(ConfigurationLayer.reason(error))")
        }
        var values: [Setting: String] = [:]
        for (name, value) in object.sorted(by: { $0.key < $1.key }) {
            guard let setting = Setting(rawValue: name) else {
                let known = Setting.allCases.map(\.rawValue).joined(separator: ", ")
                throw ConfigurationError("\(path): there is no setting '\(name)'; there are \(known)")
            }
            values[setting] = value.text
        }
        self.init(origin: "in \(path)", values: values)
    }

    private static func reason(_ error: any Error) -> String {
        switch error {
        case DecodingError.dataCorrupted(let context), DecodingError.typeMismatch(_, let context),
            DecodingError.valueNotFound(_, let context), DecodingError.keyNotFound(_, let context):
            let place = context.codingPath.map(\.stringValue).joined(separator: ".")
            let cause = context.underlyingError.map { " (\($0))" } ?? ""
            return (place.isEmpty ? "" : place + ": ") + context.debugDescription + cause
        case let error as CocoaError:
            switch error.code {
            case .fileReadNoSuchFile: return "there is no such file"
            case .fileReadNoPermission: return "permission denied"
            default: return "\(error)"
            }
        default: return "\(error)"
        }
    }

    /// A JSON value that is neither a list nor an object nor null.
    private struct Scalar: Decodable {
        let text: String

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let value = try? container.decode(Bool.self) {
                text = String(value)
            } else if let value = try? container.decode(Int.self) {
                text = String(value)
            } else if let value = try? container.decode(Double.self) {
                text = String(value)
            } else if let value = try? container.decode(String.self) {
                text = value
            } else {
                throw DecodingError.dataCorruptedError(
                    in: container, debugDescription: "neither text nor a number nor true or false")
            }
        }
    }
}
