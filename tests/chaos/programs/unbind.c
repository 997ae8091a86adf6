/* Takes the driver away from the device that the agent speaks through, and ends well. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRIVER "/sys/bus/virtio/drivers/virtio_console"

int main(void)
{
	DIR *devices = opendir(DRIVER);
	struct dirent *entry;
	int unbind = open(DRIVER "/unbind", O_WRONLY);

	while (devices && (entry = readdir(devices)))
		if (!strncmp(entry->d_name, "virtio", 6))
			return write(unbind, entry->d_name, strlen(entry->d_name)) < 0 ? 2 : 0;
	return 2;
}
