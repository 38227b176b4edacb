"""What pip would install, with the checksum of each file: from its report, on stdin, to a file of requirements."""

import json
import sys

report = json.load(sys.stdin)
where = report["environment"]
system = f"{where['platform_system']} {where['platform_machine']}, Python {where['python_version']}"
print(f"# made by `make lock`, for {system}")
found = {each["metadata"]["name"].lower(): each for each in report["install"]}
for name in sorted(found):
    sha256 = found[name]["download_info"]["archive_info"]["hashes"]["sha256"]
    print(f"{name}=={found[name]['metadata']['version']} --hash=sha256:{sha256}")
