// The registers of an STM32G474 that this port touches: address, and the fields by name. UNTESTED ON HARDWARE.
//
// The reference manual (RM0440) was not read. Addresses, offsets and fields were seen in public sources that use this
// family: a copy of the vendor's CMSIS header of the STM32G474 (FDCAN, GPIO, IWDG, PWR, FLASH, TIM, interrupt numbers),
// register listings of the STM32L4 and G4 families (RCC, PVDO), several bare-metal FDCAN drivers (message RAM, element
// layout). Two of those disagree on where FDCAN2's message RAM begins; the three that compute it from the fixed layout
// say 848 bytes after FDCAN1's, as here.
#pragma once

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t*)(address))

// Clocks.
#define RCC_CR REGISTER(0x40021000u)
#define RCC_CFGR REGISTER(0x40021008u)
#define RCC_PLLCFGR REGISTER(0x4002100Cu)
#define RCC_AHB2ENR REGISTER(0x4002104Cu)
#define RCC_APB1ENR1 REGISTER(0x40021058u)
#define RCC_CCIPR REGISTER(0x40021088u)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_CFGR_SW_PLL 3u
#define RCC_CFGR_SWS_PLL (3u << 2)
#define RCC_CFGR_HPRE_DIV2 (8u << 4)
#define RCC_PLLCFGR_SOURCE_HSE 3u
#define RCC_PLLCFGR_M(m) (((m)-1u) << 4)
#define RCC_PLLCFGR_N(n) ((n) << 8)
#define RCC_PLLCFGR_REN (1u << 24)  // R divides by 2 when its field is 0
#define RCC_AHB2ENR_GPIOA (1u << 0)
#define RCC_AHB2ENR_GPIOB (1u << 1)
#define RCC_APB1ENR1_TIM2 (1u << 0)
#define RCC_APB1ENR1_FDCAN (1u << 25)
#define RCC_APB1ENR1_PWR (1u << 28)
#define RCC_CCIPR_FDCAN_PCLK1 (2u << 24)

// Supply and flash.
#define PWR_CR2 REGISTER(0x40007004u)
#define PWR_SR2 REGISTER(0x40007014u)
#define PWR_CR5 REGISTER(0x40007080u)
#define PWR_CR2_PVDE (1u << 0)
#define PWR_CR2_PLS(level) ((level) << 1)
#define PWR_SR2_PVDO (1u << 11)
#define PWR_CR5_R1MODE (1u << 8)
#define FLASH_ACR REGISTER(0x40022000u)
#define FLASH_ACR_LATENCY_MASK 0xFu
#define FLASH_ACR_DATA_CACHE (1u << 10)
#define FLASH_ACR_DATA_RESET (1u << 12)
#define FLASH_KEYR REGISTER(0x40022008u)
#define FLASH_SR REGISTER(0x40022010u)
#define FLASH_CR REGISTER(0x40022014u)
#define FLASH_SR_BUSY (1u << 16)
#define FLASH_SR_ERRORS 0xC3FAu
#define FLASH_CR_PROGRAM (1u << 0)
#define FLASH_CR_ERASE_PAGE (1u << 1)
#define FLASH_CR_PAGE(n) ((n) << 3)
#define FLASH_CR_BANK_2 (1u << 11)
#define FLASH_CR_START (1u << 16)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_KEY_1 0x45670123u
#define FLASH_KEY_2 0xCDEF89ABu
#define FLASH_ACR_CACHES (7u << 8)  // prefetch, instructions, data

// Free-running timer.
#define TIM2_CR1 REGISTER(0x40000000u)
#define TIM2_EGR REGISTER(0x40000014u)
#define TIM2_CNT REGISTER(0x40000024u)
#define TIM2_PSC REGISTER(0x40000028u)
#define TIM2_ARR REGISTER(0x4000002Cu)

// Independent watchdog, on its own 32 kHz oscillator.
#define IWDG_KR REGISTER(0x40003000u)
#define IWDG_PR REGISTER(0x40003004u)
#define IWDG_RLR REGISTER(0x40003008u)
#define IWDG_SR REGISTER(0x4000300Cu)
enum { IWDG_START = 0xCCCC, IWDG_UNLOCK = 0x5555, IWDG_FEED = 0xAAAA };

// Ports A (n = 0) and B (n = 1).
#define GPIO_BASE(n) (0x48000000u + 0x400u * (n))
#define GPIO_MODER(n) REGISTER(GPIO_BASE(n) + 0x00)
#define GPIO_OSPEEDR(n) REGISTER(GPIO_BASE(n) + 0x08)
#define GPIO_PUPDR(n) REGISTER(GPIO_BASE(n) + 0x0C)
#define GPIO_BSRR(n) REGISTER(GPIO_BASE(n) + 0x18)
#define GPIO_IDR(n) REGISTER(GPIO_BASE(n) + 0x10)
#define GPIO_AFR(n, half) REGISTER(GPIO_BASE(n) + 0x20 + 4 * (half))

// FDCAN1 (n = 0) and FDCAN2 (n = 1), and their fixed message RAM.
#define FDCAN_BASE(n) (0x40006400u + 0x400u * (n))
#define FDCAN_DBTP(n) REGISTER(FDCAN_BASE(n) + 0x0C)
#define FDCAN_CCCR(n) REGISTER(FDCAN_BASE(n) + 0x18)
#define FDCAN_NBTP(n) REGISTER(FDCAN_BASE(n) + 0x1C)
#define FDCAN_PSR(n) REGISTER(FDCAN_BASE(n) + 0x44)
#define FDCAN_TDCR(n) REGISTER(FDCAN_BASE(n) + 0x48)
#define FDCAN_IR(n) REGISTER(FDCAN_BASE(n) + 0x50)
#define FDCAN_IE(n) REGISTER(FDCAN_BASE(n) + 0x54)
#define FDCAN_ILE(n) REGISTER(FDCAN_BASE(n) + 0x5C)
#define FDCAN_RXGFC(n) REGISTER(FDCAN_BASE(n) + 0x80)
#define FDCAN_RXF0S(n) REGISTER(FDCAN_BASE(n) + 0x90)
#define FDCAN_RXF0A(n) REGISTER(FDCAN_BASE(n) + 0x94)
#define FDCAN_TXBC(n) REGISTER(FDCAN_BASE(n) + 0xC0)
#define FDCAN_TXFQS(n) REGISTER(FDCAN_BASE(n) + 0xC4)
#define FDCAN_TXBRP(n) REGISTER(FDCAN_BASE(n) + 0xC8)
#define FDCAN_TXBAR(n) REGISTER(FDCAN_BASE(n) + 0xCC)
#define FDCAN_TXBCR(n) REGISTER(FDCAN_BASE(n) + 0xD0)
#define FDCAN_CCCR_INIT (1u << 0)
#define FDCAN_CCCR_CCE (1u << 1)
#define FDCAN_CCCR_FDOE (1u << 8)
#define FDCAN_CCCR_BRSE (1u << 9)
#define FDCAN_PSR_BUS_OFF (1u << 7)
#define FDCAN_IR_RF0N (1u << 0)
#define FDCAN_ILE_LINE0 (1u << 0)
#define FDCAN_RXF0S_FILL 0xFu
#define FDCAN_RXF0S_GET_INDEX(status) ((status) >> 8 & 3u)
#define FDCAN_TXFQS_FREE 0x7u
#define FDCAN_TXFQS_PUT_INDEX(status) ((status) >> 16 & 3u)
#define FDCAN_RAM(n) (0x4000A400u + 848u * (n))
#define FDCAN_RX_ELEMENT(n, index) ((volatile uint32_t*)(FDCAN_RAM(n) + 0x0B0u + 72u * (index)))
#define FDCAN_TX_ELEMENT(n, index) ((volatile uint32_t*)(FDCAN_RAM(n) + 0x278u + 72u * (index)))
enum { FDCAN_RAM_WORDS = 212 };
// An element's first two words.
#define ELEMENT_EXTENDED (1u << 30)
#define ELEMENT_REMOTE (1u << 29)
#define ELEMENT_LENGTH_AT 16
#define ELEMENT_BIT_RATE_SWITCH (1u << 20)
#define ELEMENT_FD (1u << 21)

#define NVIC_ENABLE(irq) REGISTER(0xE000E100u + 4u * ((irq) / 32u))
enum { IRQ_FDCAN1 = 21, IRQ_FDCAN2 = 86, IRQS = 102 };
