"""Reads packaging/kubernetes: valid YAML, and each name that one object uses is another's. Prints what is wrong."""
import glob
import sys

try:
    import yaml
except ImportError:
    sys.exit(print("PyYAML is not there (Debian: python3-yaml)"))

for path in sorted(glob.glob("packaging/kubernetes/*.yaml")):
    try:
        objects = [one for one in yaml.safe_load_all(open(path)) if one]
    except yaml.YAMLError as error:
        print(f"{path}: {error}")
        continue
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}

    def wants(of, kind, name):
        if (kind, name) not in there:
            print(f"{path}: {of} names the {kind} {name}, which is not there")

    if len(there) != len(objects):
        print(f"{path}: two objects of one kind have one name")
    pods = [one["spec"]["template"] for one in objects if "template" in one.get("spec", {})]
    for one in objects:
        spec, name = one.get("spec", {}), f'{one["kind"]} {one["metadata"]["name"]}'
        if "apiVersion" not in one:
            print(f"{path}: {name} has no apiVersion")
        selector = spec.get("selector")
        labels = selector and selector.get("matchLabels", selector)
        chosen = [pod for pod in pods if labels and labels.items() <= pod["metadata"]["labels"].items()]
        if selector and not chosen:
            print(f"{path}: no pod has the labels that {name} selects")
        for port in spec.get("ports", []) if one["kind"] == "Service" else []:
            names = [p["name"] for pod in chosen for c in pod["spec"]["containers"] for p in c["ports"]]
            if port["targetPort"] not in names:
                print(f'{path}: {name} leads to the port {port["targetPort"]}, which no container has')
        if "serviceName" in spec:
            wants(name, "Service", spec["serviceName"])
        if "roleRef" in one:
            wants(name, one["roleRef"]["kind"], one["roleRef"]["name"])
            for subject in one["subjects"]:
                wants(name, subject["kind"], subject["name"])
        if "template" in spec:
            pod = spec["template"]["spec"]
            if "serviceAccountName" in pod:
                wants(name, "ServiceAccount", pod["serviceAccountName"])
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            for volume in pod.get("volumes", []):
                wants(name, "ConfigMap", volume["configMap"]["name"])
            for container in pod["containers"]:
                for mount in container.get("volumeMounts", []):
                    if mount["name"] not in volumes:
                        print(f'{path}: {name} mounts {mount["name"]}, which is no volume')
