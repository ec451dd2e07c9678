#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Whether the fuzz targets still fit the store, by what `swift build -c release --build-tests` has made of it: seconds,
# where to build them takes minutes. Says nothing where they do.
set -euo pipefail
cd "$(dirname "$0")/.."

built=$(swift build -c release --show-bin-path)
# The modules of C that the store's import, as SwiftPM has told the compiler of them, and the package that they belong to.
mapfile -t maps < <(grep -oE '"-fmodule-map-file=[^"]*"' .build/release.yaml | tr -d '"' | sort -u)
package=$(grep -F '"-module-name","HashRing"' .build/release.yaml | grep -oE '"-package-name","[^"]*"' | cut -d '"' -f 4)
flags=()
for map in "${maps[@]}"; do flags+=(-Xcc "$map"); done
exec swiftc -typecheck -parse-as-library -swift-version 6 -package-name "$package" -I "$built/Modules" \
    -enable-upcoming-feature ExistentialAny -enable-upcoming-feature MemberImportVisibility \
    -enable-upcoming-feature InternalImportsByDefault -enable-upcoming-feature NonisolatedNonsendingByDefault \
    "${flags[@]}" Fuzz/Sources/Fuzz/*.swift
