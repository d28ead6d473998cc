# Picks out of requirements-dev.txt, with their hashes, the packages that build this project and nothing else.
/^[a-z0-9]/ { wanted = $1 ~ /^(build|hatchling|packaging|pathspec|pluggy|pyproject-hooks|tomlkit|trove-classifiers)==/ }
wanted
