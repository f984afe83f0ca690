/* The process that holds a Pod's namespaces. */
#include <unistd.h>

int main(void) {
    for (;;) pause();
}
