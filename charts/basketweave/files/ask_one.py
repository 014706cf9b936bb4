"""What `helm test` runs: one recommendation from the release's service, by its own image's Python and nothing else."""

import json
import os
import sys
import urllib.error
import urllib.request

url = os.environ["SERVICE_URL"] + "/recommend"
key = json.loads(os.environ["API_KEYS"])[0]
request = urllib.request.Request(  # noqa: S310  # the chart writes the address
    url,
    data=json.dumps({"k": 3}).encode(),
    headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
)
try:
    with urllib.request.urlopen(request, timeout=float(os.environ["TIMEOUT_SECONDS"])) as response:  # noqa: S310
        answer = json.load(response)
except urllib.error.HTTPError as error:
    sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{url} cannot be reached: {error}")
if not answer["items"]:
    sys.exit(f"{url} answered an empty list.")
titles = ", ".join(item["title"] for item in answer["items"])
sys.stdout.write(f"bundle {answer['bundle'][:12]} recommends: {titles}\n")
