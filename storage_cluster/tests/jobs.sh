# SPDX-License-Identifier: Apache-2.0
#
# Sourced by bash scripts that run several programs, JOBS (default 2) at a time:
#   job COMMAND...     begins it as soon as fewer than JOBS run; what it prints
#                      goes to a file of its own
#   jobs_done FUNCTION waits for all; then, in the order in which they were
#                      begun, FUNCTION FILE STATUS SECONDS COMMAND...
# The files are in $job_dir, which is gone when the script ends.
job_dir=$(mktemp -d) || exit 1
trap 'rm -rf "$job_dir"' EXIT
trap 'cat "$job_dir"/*[0-9]; exit 130' INT TERM	# what they have said until then
job_commands=()

job() {
	local n=${#job_commands[@]}
	while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n; done
	job_commands[n]=${*@Q}
	{
		SECONDS=0
		"$@" >"$job_dir/$n" 2>&1 </dev/null
		echo "$? $SECONDS" >"$job_dir/$n.end"
	} &
}

jobs_done() {
	local n status seconds
	wait
	for n in "${!job_commands[@]}"; do
		# (None: it was ended from outside.)
		read -r status seconds <"$job_dir/$n.end" || { status=1; seconds=0; }
		eval "$1 '$job_dir/$n' $status $seconds ${job_commands[n]}"
	done
	job_commands=()
}
